"""Extractions killed, stopped, raced, grown and repaired: the store is right, or refused."""

import os
import random
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from forge import PX, Forge, features
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ruamel.yaml import YAML

from cache.store import open_store
from pipeline.archives import NAMES, Archive, archive_path
from pipeline.images import decode, resized
from pipeline.signs import index_images
from stages.demo import checksums

KILLS = int(os.environ.get("FC7CACHE_KILLS", "25"))  # the soak sets 200


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    forge = Forge()
    yield forge
    forge.close()


@pytest.fixture(scope="module")
def index(drawn: Path) -> pd.DataFrame:
    return index_images({part: Archive(archive_path(str(drawn), part)) for part in NAMES})


def new_root(path: Path, drawn: Path, layers: tuple[str, ...] = ("conv5", "fc7")) -> Path:
    path.mkdir(parents=True)
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["prepare"] |= {"source": str(drawn), "md5": checksums(drawn)}
    params["base"] |= {"weights": "seeded", "layers": list(layers)}
    params["store"] |= {"shard_rows": 16, "chunk_rows": 8}
    YAML(typ="safe").dump(params, path / "params.yaml")
    return path


def contents(root: Path) -> dict[str, bytes]:
    store = root / "features.zarr"
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def kept_rows(root: Path) -> int:
    shards = list(root.glob("scratch/*/*.zarr/fc7/c/*/0"))
    shards = [p for p in shards if Path(str(p).replace("/fc7/", "/conv5/")).exists()]
    return sum(16 if int(p.parent.name) < 290 // 16 else 290 % 16 for p in shards)


def test_killed_anywhere_any_number_of_times(
    forge: Forge, index: pd.DataFrame, drawn: Path, tmp_path: Path
) -> None:
    reference = new_root(tmp_path / "reference", drawn)
    assert forge.extract(reference, index)["status"] == 0
    whole = contents(reference)
    chance = random.Random(1)
    kills = runs = 0
    while kills < KILLS:
        root = new_root(tmp_path / f"run{runs}", drawn)
        before = 0
        while True:
            answer = forge.extract(root, index, kill_after=chance.uniform(0, 0.5))
            if answer["status"] == 0:
                break
            assert answer["status"] == -signal.SIGKILL
            kills += 1
            assert not (root / "features.zarr").exists() or contents(root) == whole
            assert kept_rows(root) >= before, "a shard that was whole is gone"
            before = kept_rows(root)
        assert answer["forwarded"] == 290 - before
        assert answer["reused"] == before
        assert contents(root) == whole
        shutil.rmtree(root)
        runs += 1
    print(f"{kills} kills in {runs} extractions; every store byte-identical")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_says_how_to_go_on(
    stop: signal.Signals, forge: Forge, index: pd.DataFrame, drawn: Path, tmp_path: Path
) -> None:
    root = new_root(tmp_path / "root", drawn)
    for wait in (0.05, 0.1, 0.2, 0.3, 0.5):  # the machine's speed is not known
        answer = forge.extract(root, index, kill_after=wait, kill_with=stop)
        if answer["status"] == 130:
            break
        shutil.rmtree(root / "scratch", ignore_errors=True)
    assert answer["status"] == 130
    assert answer["printed"].splitlines()[-1].startswith("stopped: ")
    assert "Traceback" not in answer["printed"]
    assert forge.extract(root, index)["status"] == 0


def test_two_at_once_do_not_share_scratch(
    forge: Forge, index: pd.DataFrame, drawn: Path, tmp_path: Path
) -> None:
    roots = [new_root(tmp_path / name, drawn) for name in ("a", "b")]
    other = Forge()
    with ThreadPoolExecutor() as pool:
        common = {"FC7CACHE_SCRATCH": str(tmp_path / "scratch")}
        first, second = (
            pool.submit(each.extract, root, index, **common)
            for each, root in zip((forge, other), roots, strict=True)
        )
    other.close()
    answers = [first.result(), second.result()]
    assert 0 in [answer["status"] for answer in answers]
    for answer, root in zip(answers, roots, strict=True):
        if answer["status"]:
            assert answer["status"] == 2
            assert "another extraction is at work" in answer["printed"]
            assert not (root / "features.zarr").exists()


def test_growing_forwards_the_new_contents_only(
    forge: Forge, index: pd.DataFrame, drawn: Path, tmp_path: Path
) -> None:
    root, fresh = new_root(tmp_path / "root", drawn), new_root(tmp_path / "fresh", drawn)
    shuffled = index.sample(frac=1, random_state=0)
    assert forge.extract(root, shuffled.iloc[:190])["forwarded"] == 190
    later = shuffled.iloc[50:].sample(frac=1, random_state=1)  # 50 dropped, 100 new, reordered
    twice = pd.concat([later, later.iloc[:5].assign(image_id=list("abcde"))])
    answer = forge.extract(root, twice)
    assert {k: answer[k] for k in ("rows", "forwarded", "reused", "duplicates")} == {
        "rows": 245,
        "forwarded": 100,
        "reused": 140,
        "duplicates": 5,
    }
    assert forge.extract(fresh, twice)["forwarded"] == 240
    assert contents(root) == contents(fresh)


def test_another_layer_reuses_nothing_and_says_so(
    forge: Forge, index: pd.DataFrame, drawn: Path, tmp_path: Path
) -> None:
    root = new_root(tmp_path / "root", drawn, ("fc7",))
    forge.extract(root, index)
    shutil.copyfile(new_root(tmp_path / "more", drawn) / "params.yaml", root / "params.yaml")
    answer = forge.extract(root, index)
    assert answer["forwarded"] == 290
    assert "made with layers ['fc7'], not ['conv5', 'fc7']" in answer["printed"]


def test_damage_in_scratch_is_computed_again(
    forge: Forge, index: pd.DataFrame, drawn: Path, tmp_path: Path
) -> None:
    root = new_root(tmp_path / "root", drawn)
    forge.extract(root, index)
    whole = contents(root)
    flip(next(root.glob("scratch/*/*.zarr/fc7/c/3/0")))
    shutil.rmtree(root / "features.zarr")
    answer = forge.extract(root, index)
    assert answer["status"] == 0
    assert answer["forwarded"] == 16
    assert contents(root) == whole


def flip(path: Path, where: float = 0.5) -> None:
    """Flip one bit; a new file, so that hard links elsewhere stay as they are."""
    data = bytearray(path.read_bytes())
    data[int(where * (len(data) - 1))] ^= 16
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("scratch", ["kept", "gone"])
def test_repair_computes_the_damaged_shards_only(
    scratch: str, forge: Forge, index: pd.DataFrame, drawn: Path, tmp_path: Path
) -> None:
    root = new_root(tmp_path / "root", drawn)
    forge.extract(root, index)
    whole = contents(root)
    flip(root / "features.zarr/fc7/c/3/0")
    (root / "features.zarr/conv5/c/7/0").unlink()
    if scratch == "gone":
        shutil.rmtree(root / "scratch")
    answer = forge.extract(root, index, repair=True)
    assert answer["status"] == 0, answer["printed"]
    assert answer["forwarded"] == (32 if scratch == "gone" else 0)
    assert contents(root) == whole


class Growing(RuleBasedStateMachine):
    """Add, drop, reorder, kill, damage, repair; a dictionary of features is the oracle."""

    forge: Forge
    index: pd.DataFrame
    drawn: Path
    folder: Path
    number = 0

    @initialize()
    def start(self) -> None:
        Growing.number += 1
        self.root = new_root(self.folder / f"machine{Growing.number}", self.drawn)
        self.rows = list(range(20))
        self.done: list[int] | None = None
        self.known: set[int] = set()

    @rule(new=st.sets(st.integers(0, 289), max_size=40))
    def add(self, new: set[int]) -> None:
        self.rows += sorted(new - set(self.rows))

    @rule(gone=st.sets(st.integers(0, 289), max_size=10))
    def drop(self, gone: set[int]) -> None:
        self.rows = [row for row in self.rows if row not in gone] or self.rows

    @rule(seed=st.integers(0, 9))
    def reorder(self, seed: int) -> None:
        random.Random(seed).shuffle(self.rows)

    @rule(after=st.floats(0, 0.2))
    def kill(self, after: float) -> None:
        self.forge.extract(self.root, self.index.iloc[self.rows], kill_after=after)
        if not (self.root / "features.zarr").exists():
            self.done = None  # killed before, or just while, it was put in its place
            return
        published = open_store(self.root / "features.zarr").column("image_id").tolist()
        if published == self.index.iloc[self.rows]["image_id"].tolist():
            self.done, self.known = list(self.rows), self.known | set(self.rows)

    @rule()
    def extract(self) -> None:
        answer = self.forge.extract(self.root, self.index.iloc[self.rows])
        assert answer["status"] == 0, answer["printed"]
        assert answer["forwarded"] <= len(set(self.rows) - self.known)
        self.done, self.known = list(self.rows), self.known | set(self.rows)

    @rule(where=st.floats(0, 1))
    def damage_and_repair(self, where: float) -> None:
        if self.done is None:
            return
        shards = sorted((self.root / "features.zarr").glob("fc7/c/*/0"))
        flip(shards[int(where * (len(shards) - 1))], where)
        answer = self.forge.extract(self.root, self.index.iloc[self.done], repair=True)
        assert answer["status"] == 0, answer["printed"]

    @invariant()
    def store_is_that_of_the_oracle(self) -> None:
        if getattr(self, "done", None) is None:
            return
        store = open_store(self.root / "features.zarr")
        wanted = self.index.iloc[self.done]
        assert store.column("image_id").tolist() == wanted["image_id"].tolist()
        oracle = np.stack([ORACLE[image_id] for image_id in wanted["image_id"]])
        np.testing.assert_array_equal(store.features("fc7"), oracle)

    def teardown(self) -> None:
        if getattr(self, "done", None) is not None:
            fresh = new_root(self.root.with_name(f"{self.root.name}fresh"), self.drawn)
            self.forge.extract(fresh, self.index.iloc[self.done])
            assert contents(self.root) == contents(fresh)


ORACLE: dict[str, np.ndarray] = {}


def test_whatever_is_done_the_store_is_right(
    forge: Forge, index: pd.DataFrame, drawn: Path, tmp_path: Path
) -> None:
    archives = {split: Archive(archive_path(str(drawn), split)) for split in ("train", "test")}
    for row in index.itertuples():
        image = decode(archives[row.split].read(row.member), row.member)
        image = resized(np.asarray(image), PX)
        ORACLE[row.image_id] = features(image[None])[0]
    Growing.forge, Growing.index, Growing.drawn, Growing.folder = forge, index, drawn, tmp_path
    run = settings(
        max_examples=15,
        stateful_step_count=12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    machine = Growing.TestCase
    machine.settings = run
    machine().runTest()
