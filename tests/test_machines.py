"""Machine A computes and pushes; machine B has what git and the remote hold, and no more."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import numpy as np
import pooch
import pytest
from conftest import Workspace
from ruamel.yaml import YAML
from s3 import S3

from pipeline.alexnet import weight_shapes
from pipeline.weights import seeded_weights
from stages.demo import draw_archives

STAGES = ["prepare", "extract", "train@ridge", "train@nearest_mean", "study@ridge", "compare"]
# What tells how long something took differs from run to run; all else is the same.
DURATIONS = {"results/extract.json", "results/report.html"} | {
    f"results/{file}"
    for head in ("ridge", "nearest_mean")
    for file in (f"training/{head}.json", f"sweeps/{head}.csv")
}
GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@localhost",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@localhost",
}


class Machine(Workspace):
    """A workspace under git, with a DVC cache and a scratch folder of its own."""

    def __init__(self, root: Path, s3: S3) -> None:
        super().__init__(root)
        self.s3 = s3
        self.scratch = root.parent / f"{root.name}-scratch"

    def env(self, **changes: str) -> dict[str, str]:
        here = {"FC7CACHE_SCRATCH": str(self.scratch)}
        return super().env(**GIT, **self.s3.env, **here, **changes)

    def git(self, *args: str | Path) -> str:
        return subprocess.run(
            ["git", *args],
            cwd=self.root,
            env=self.env(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def commit(self, message: str) -> None:
        """All there is."""
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", message)

    def clone(self, root: Path, remote: str | None = None) -> Self:
        """Another machine; ``remote`` is where it pulls from."""
        self.git("clone", "--quiet", ".", root)
        there = type(self)(root, self.s3)
        if remote:
            there.run("dvc", "remote", "default", "--local", remote)
        return there

    def ran(self, *args: str, **env: str) -> list[str]:
        """The stages whose commands ``dvc repro`` ran."""
        self.printed = self.repro(*args, **env)
        return re.findall(r"^Running stage '(.+)':$", self.printed, re.MULTILINE)

    def files(self, folder: str) -> dict[Path, bytes]:
        paths = (path for path in (self.root / folder).rglob("*") if path.is_file())
        return {path.relative_to(self.root): path.read_bytes() for path in paths}

    def metrics(self) -> object:
        """As DVC shows them."""
        shown = json.loads(self.run("dvc", "metrics", "show", "--json"))
        return shown[""]["data"]["results/metrics.json"]["data"]

    def ranking(self) -> list[str]:
        """Heads as the comparison lists them, the best first."""
        table = (self.root / "results/comparison.txt").read_text()
        return re.findall(r"^(\w+) +\d+\.\d\d ", table, re.MULTILINE)


Clone = Callable[..., Machine]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives of three classes, and weights in a file."""
    folder = tmp_path_factory.mktemp("sources")
    draw_archives(folder, classes=(1, 14, 38))
    np.savez(folder / "weights.npz", **seeded_weights(weight_shapes("narrow", ["fc7"])))
    return folder


@pytest.fixture
def sources_gone(sources: Path) -> Iterator[None]:
    """Neither images nor weights are within reach."""
    elsewhere = sources.rename(sources.with_name("elsewhere"))
    yield
    elsewhere.rename(sources)


@pytest.fixture(scope="module")
def machine_a(tmp_path_factory: pytest.TempPathFactory, sources: Path, s3_server: S3) -> Machine:
    """Has run everything, committed dvc.lock, and pushed to a directory and to S3."""
    folder = tmp_path_factory.mktemp("a")
    a = Machine(folder / "project", s3_server)
    a.set_up(sources)
    weights = sources / "weights.npz"
    a.set("base", weights=str(weights), sha256=pooch.file_hash(str(weights)))
    yaml, path = YAML(), a.root / "params.yaml"
    params = yaml.load(path)
    params["heads"] = {name: params["heads"][name] for name in ("ridge", "nearest_mean")}
    params["study"]["heads"] = ["ridge"]
    yaml.dump(params, path)
    config = a.root / ".dvc/config"
    config.write_text(config.read_text().replace("    no_scm = true\n", ""))
    a.git("init", "--quiet")
    a.commit("Settings")
    assert a.ran() == STAGES
    for name, address in (("directory", folder / "remote"), ("s3", s3_server.bucket())):
        a.run("dvc", "remote", "add", name, str(address))
        a.run("dvc", "push", "--run-cache", "--remote", name)
    a.commit("Results")
    return a


@pytest.fixture
def clone(machine_a: Machine, tmp_path: Path) -> Clone:
    return lambda remote=None, name="b": machine_a.clone(tmp_path / name, remote)


@pytest.mark.parametrize("remote", ["directory", "s3"])
@pytest.mark.usefixtures("sources_gone")
def test_another_machine_runs_nothing_and_has_the_same(
    machine_a: Machine, clone: Clone, remote: str
) -> None:
    b = clone(remote)
    assert b.ran("--pull", "--allow-missing") == []
    assert re.findall(r"Stage '(.+)' didn't change, skipping", b.printed) == STAGES
    assert not (b.root / "data").exists()  # not even fetched
    assert b.metrics() == json.loads((machine_a.root / "results/metrics.json").read_text())

    assert b.ran("--pull") == []
    for folder in ("data", "models", "results"):
        assert b.files(folder) == machine_a.files(folder)
    assert b.run("dvc", "status") == "Data and pipelines are up to date.\n"
    assert b.git("status", "--short") == ""
    assert not b.scratch.exists()


@pytest.mark.usefixtures("sources_gone")
def test_a_changed_head_is_trained_without_images_weights_or_base(
    machine_a: Machine, clone: Clone
) -> None:
    b = clone("s3")
    b.set("heads.ridge", alpha=[0.2, 2])
    assert b.ran("--pull") == ["train@ridge", "study@ridge", "compare"]
    assert b.files("data") == machine_a.files("data")
    assert b.files("models/nearest_mean") == machine_a.files("models/nearest_mean")
    assert b.files("models/ridge") != machine_a.files("models/ridge")
    assert sorted(b.ranking()) == ["nearest_mean", "ridge"]
    assert not list(b.scratch.glob("*/*.zarr*"))  # trials of the head, no store

    # What one machine tried, another need not try again.
    b.run("dvc", "push", "--run-cache")
    c = clone("s3", "c")
    c.set("heads.ridge", alpha=[0.2, 2])
    assert c.ran("--pull") == []
    cached = re.findall(r"Stage '(.+)' is cached - skipping run", c.printed)
    assert cached == ["train@ridge", "study@ridge", "compare"]
    for folder in ("models", "results"):
        assert c.files(folder) == b.files(folder)

    # One head alone wants nothing but the store.
    d = clone("s3", "d")
    d.set("heads.ridge", alpha=0.5)
    assert d.ran("--pull", "--allow-missing", "train@ridge") == ["train@ridge"]
    assert not (d.root / "models/nearest_mean").exists()


def test_continuous_integration_sees_what_is_stale_without_data(clone: Clone) -> None:
    b = clone()
    assert b.ran("--allow-missing", "--dry") == []
    assert "Data and pipelines are up to date." in b.printed
    b.set("heads.ridge", alpha=[0.2, 2])
    said = b.run("dvc", "repro", "--allow-missing", "--dry", status=255)
    assert "failed to reproduce 'train@ridge'" in said


def test_from_scratch_everything_but_durations_is_the_same(
    machine_a: Machine, clone: Clone
) -> None:
    b = clone()
    assert b.ran("--force") == STAGES
    store = "data/features.zarr"
    said = b.run("stages", "diff", str(machine_a.root / store), store)
    assert said == "fc7: 174 of 174 shared rows are identical\nequal\n"
    for folder in ("data", "models", "results"):
        ours, theirs = b.files(folder), machine_a.files(folder)
        assert ours.keys() == theirs.keys()
        assert {str(path) for path in ours if ours[path] != theirs[path]} <= DURATIONS


@pytest.mark.slow
def test_other_arithmetic_is_within_the_tolerance_and_ranks_heads_alike(
    machine_a: Machine, clone: Clone
) -> None:
    # JAX adds up in another order than TensorFlow, as another processor does.
    b = clone()
    assert b.ran("--force", KERAS_BACKEND="jax") == STAGES
    stores = str(machine_a.root / "data/features.zarr"), "data/features.zarr"
    assert "identical" in b.run("stages", "diff", *stores, status=1)
    assert "equal" in b.run("stages", "diff", "--rtol", "1e-5", *stores)
    assert b.ranking() == machine_a.ranking() == ["ridge", "nearest_mean"]
