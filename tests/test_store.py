"""Tests of writing, publishing, opening and reading a store."""

import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import fsspec
import killed as killer
import numpy as np
import pytest
import xarray as xr
import zarr
from conftest import ROOT
from fsspec.registry import known_implementations
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from stores import (
    LAYERS,
    MADE_BY,
    SMALL,
    columns_for,
    digests,
    edit,
    features_for,
    folder_of,
    make_store,
    start_store,
    swap_shards,
    write,
)

from cache.errors import DamagedError, StoreError
from cache.export import export
from cache.publish import publish
from cache.spec import ATTRIBUTE, FORMAT, Layout
from cache.store import FeatureStore, open_store
from cache.writer import StoreWriter, create_store, discard

LAYOUTS = {
    "several layers": SMALL,
    "float16": Layout(21, LAYERS, "float16", 8, 2),
    "one row": Layout(1, LAYERS, shard_rows=8, chunk_rows=2),
    "whole shards": Layout(16, {"fc7": 4}, shard_rows=8, chunk_rows=8),
    "one row beyond a shard": Layout(2049, {"fc7": 4}),
}
PATHS = [f"{name}/zarr.json" for name in (*LAYERS, *columns_for(1))]
COLUMN_FILES = ["image_id/c/0", "label/c/0", "sha256/c/0/0"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A finished store; to be read only."""
    return make_store(tmp_path_factory.mktemp("sound") / "s.zarr")


@pytest.fixture
def copy(sound: FeatureStore, tmp_path: Path) -> Path:
    """A copy of the finished store; to be damaged."""
    return Path(shutil.copytree(sound.address, tmp_path / "copy.zarr"))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_what_is_written_is_read(tmp_path: Path, layout: Layout) -> None:
    features, columns = features_for(layout), columns_for(layout.rows)
    make_store(tmp_path / "s.zarr", layout, features)
    store = open_store(tmp_path / "s.zarr")
    assert (store.layout, store.made_by) == (layout, MADE_BY)
    for layer, block in features.items():
        read = store.features(layer)
        assert read.dtype == layout.dtype
        np.testing.assert_array_equal(read, block)
        for shard in layout.shards:
            rows = slice(*layout.bounds(shard))
            np.testing.assert_array_equal(store.shard(layer, shard), block[rows])
    assert store.columns == sorted(columns)
    for name, values in columns.items():
        read = store.column(name)
        assert read.dtype.kind == values.dtype.kind
        np.testing.assert_array_equal(read, values)


def test_a_shard_is_one_file_and_nothing_else_is_there(sound: FeatureStore) -> None:
    shards = [f"{layer}/c/{shard}/0" for layer in LAYERS for shard in range(3)]
    assert sorted(digests(Path(sound.address))) == sorted(
        ["zarr.json", *PATHS, *COLUMN_FILES, *shards]
    )


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    layer=st.sampled_from([*LAYERS]),
    rows=st.lists(st.integers(-SMALL.rows, SMALL.rows - 1), max_size=40)
    | st.lists(st.booleans(), min_size=SMALL.rows, max_size=SMALL.rows),
)
def test_rows_are_picked_as_numpy_picks_them(
    sound: FeatureStore, layer: str, rows: list[int] | list[bool]
) -> None:
    picked = np.array(rows, bool if rows and isinstance(rows[0], bool) else np.int64)
    expected = features_for(SMALL)[layer][picked]
    np.testing.assert_array_equal(sound.features(layer, picked), expected)


@pytest.mark.parametrize("row", [21, 23, 24, -22])
def test_row_beyond_the_store_is_no_damage(sound: FeatureStore, row: int) -> None:
    with pytest.raises(IndexError):
        sound.features("fc7", np.array([0, row]))


def test_unknown_layer_is_refused(sound: FeatureStore) -> None:
    with pytest.raises(StoreError, match=r"no layer 'fc8'; it has fc6, fc7"):
        sound.features("fc8")


@pytest.mark.parametrize("order", [[2, 1, 0], [1, 0, 2], [0, 0, 1, 2, 1]], ids=str)
def test_bytes_do_not_depend_on_the_order_of_shards(
    sound: FeatureStore, tmp_path: Path, order: list[int]
) -> None:
    make_store(tmp_path / "elsewhere" / "other.zarr", shards=order)
    assert digests(tmp_path / "elsewhere" / "other.zarr") == digests(Path(sound.address))


def test_resumed_and_republished_store_has_the_same_bytes(
    sound: FeatureStore, tmp_path: Path
) -> None:
    path = tmp_path / "s.zarr"
    start_store(path, shards=[1])
    leftover = path / "fc7" / "c" / "0" / "0.5f1a.partial"
    leftover.parent.mkdir()
    leftover.write_bytes(b"half")
    assert create_store(path, SMALL, MADE_BY, columns_for(SMALL.rows)).present_shards() == [1]
    assert not leftover.exists()
    store = make_store(path, shards=[0, 2])
    store.finish()
    publish(store, tmp_path / "published.zarr")
    assert digests(tmp_path / "published.zarr") == digests(Path(sound.address))


def test_metadata_holds_no_time_place_or_machine(sound: FeatureStore) -> None:
    for path in Path(sound.address).rglob("zarr.json"):
        text = path.read_text()
        assert str(path.parent) not in text
        assert tempfile.gettempdir() not in text
        assert socket.gethostname() not in text
        assert not re.search(r"20\d\d-\d\d|\d\d:\d\d|\b1[6-9]\d{8}\b", text)


def kill(root: Path, job: Callable[[Path], None], least: int) -> list[Path]:
    """What a job left of ROOT/before that was killed before its first, second, … touch."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    subprocess.run(
        [sys.executable, killer.__file__, root, job.__name__],
        env=os.environ | {"PYTHONPATH": path},
        check=True,
        timeout=120,
    )
    left = sorted((p for p in root.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    assert len(left) > least
    return left


def made_for_killer(path: Path) -> StoreWriter:
    """What the killed process was to make."""
    return make_store(path, killer.LAYOUT, columns=killer.COLUMNS)


def test_killed_anywhere_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    reference = digests(folder_of(made_for_killer(tmp_path / "s.zarr")))
    before = tmp_path / "before" / "data" / "features.zarr"
    make_store(before, killer.LAYOUT, features_for(killer.LAYOUT, seed=1))
    old = digests(before)
    states, partial = set(), 0
    for folder in kill(tmp_path, killer.make_and_publish, least=30):
        target, unfinished = folder / "data" / "features.zarr", folder / "s.zarr"
        state = "absent"
        if target.exists():
            state = {str(old): "old", str(reference): "new"}[str(digests(target))]
            open_store(target)
        root = unfinished / "zarr.json"
        metadata = root.read_text() if root.exists() else ""
        if ATTRIBUTE not in metadata:
            with pytest.raises(StoreError, match="found none"):
                open_store(unfinished)
        elif "digest" not in metadata:
            with pytest.raises(StoreError, match="never finished"):
                open_store(unfinished)
        else:
            assert digests(unfinished).items() >= reference.items()
        if state == "absent":
            assert digests(folder / "data" / ".features.zarr.old") == old
        states.add(state)
        partial += any(folder.rglob("*.partial"))
        publish(made_for_killer(unfinished), target)
        assert digests(target) == reference, folder.name
        assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert states == {"old", "absent", "new"}
    assert partial


def recover(path: Path, layout: Layout) -> None:
    """Discard what is damaged and write it anew, as `stages.extract` does."""
    while True:
        store = create_store(path, layout, MADE_BY, columns_for(layout.rows))
        write(store, features_for(layout), set(store.layout.shards) - set(store.present_shards()))
        try:
            return store.finish()
        except DamagedError as error:
            discard(error.address, error.shard)


def test_killed_discard_recovers_the_same_bytes(tmp_path: Path) -> None:
    layout = Layout(8, {"fc7": 2}, shard_rows=4, chunk_rows=2)
    path = folder_of(make_store(tmp_path / "before" / "s.zarr", layout))
    reference = digests(path)
    swap_shards(path, "fc7")
    for folder in kill(tmp_path, killer.discard_shard, least=2):
        recover(folder / "s.zarr", layout)
        assert digests(folder / "s.zarr") == reference, folder.name


def test_half_made_store_is_not_taken_for_one(tmp_path: Path) -> None:
    path = folder_of(start_store(tmp_path / "s.zarr"))
    metadata = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps(metadata | {"attributes": {}}))
    (path / "stray").touch()
    with pytest.raises(StoreError, match="found none"):
        FeatureStore(path)
    assert start_store(path, shards=[]).present_shards() == []
    assert not (path / "stray").exists()


@pytest.mark.parametrize("layer", LAYERS)
def test_finish_refuses_a_gap(tmp_path: Path, layer: str) -> None:
    store = start_store(tmp_path / "s.zarr")
    (folder_of(store) / layer / "c" / "1" / "0").unlink()
    with pytest.raises(DamagedError, match="not finished, shard 1 is missing"):
        store.finish()
    with pytest.raises(StoreError, match="never finished"):
        publish(store, tmp_path / "published.zarr")
    assert not (tmp_path / "published.zarr").exists()


@pytest.mark.parametrize(
    ("file", "lost"),
    [
        ("fc6/c/1/0", False),
        *[(file, lost) for file in COLUMN_FILES for lost in (False, True)],
    ],
)
def test_finish_refuses_damage(tmp_path: Path, file: str, lost: bool) -> None:
    store = start_store(tmp_path / "s.zarr")
    damage(folder_of(store) / file, lost)
    with pytest.raises(DamagedError) as caught:
        store.finish()
    assert caught.value.address == store.address


def damage(path: Path, lost: bool = False) -> None:
    """Flip a bit in the middle of a file, or remove it."""
    data = bytearray(path.read_bytes())
    path.unlink()
    if not lost:
        data[len(data) // 2] ^= 8
        path.write_bytes(data)


@pytest.mark.parametrize("layer", LAYERS)
def test_finish_refuses_a_shard_that_is_sound_but_not_the_one_written(
    tmp_path: Path, layer: str
) -> None:
    store = start_store(tmp_path / "s.zarr", shards=[])
    written = write(store, features_for(SMALL), SMALL.shards)
    swap_shards(folder_of(store), layer)
    with pytest.raises(DamagedError, match=f"{layer}/c/0/0 is not what was written") as caught:
        store.finish(written)
    assert (caught.value.address, caught.value.shard) == (store.address, 0)


@pytest.mark.parametrize("name", [*LAYERS, *columns_for(1)])
def test_finish_does_not_bless_what_was_edited_since(copy: Path, name: str) -> None:
    edit(copy / name / "zarr.json", lambda document: document.update(dimension_names=None))
    with pytest.raises(DamagedError, match=r"zarr\.json was edited"):
        StoreWriter(copy).finish()


@pytest.mark.parametrize("rows", [1, 2, 7, 9, 16])
def test_only_whole_shards_are_written(tmp_path: Path, rows: int) -> None:
    store = start_store(tmp_path / "s.zarr", shards=[])
    blocks = {layer: np.ones((rows, width), np.float32) for layer, width in LAYERS.items()}
    with pytest.raises((StoreError, ValueError)):
        store.write(0, blocks)
    assert store.present_shards() == []


@pytest.mark.parametrize("shard", [-1, 3])
def test_shard_that_is_not_there_is_not_written(tmp_path: Path, shard: int) -> None:
    store = start_store(tmp_path / "s.zarr", shards=[])
    blocks = {layer: np.ones((8, width), np.float32) for layer, width in LAYERS.items()}
    with pytest.raises((StoreError, ValueError, IndexError)):
        store.write(shard, blocks)


@pytest.mark.parametrize(
    ("dtype", "value", "largest"),
    [("float16", 70000.0, "70000"), ("float32", np.nan, "nan"), ("float32", -np.inf, "inf")],
)
def test_value_that_cannot_be_held_is_refused(
    tmp_path: Path, dtype: str, value: float, largest: str
) -> None:
    layout = Layout(21, LAYERS, dtype, 8, 2)
    features = features_for(SMALL)
    features["fc6"][9, 1] = value
    with pytest.raises(StoreError, match=rf"fc6: rows 8 to 15 hold .*{dtype} cannot.*{largest}"):
        start_store(tmp_path / "s.zarr", layout, features)
    assert FeatureStore(str(tmp_path / "s.zarr")).present_shards() == [0]


def test_unfinished_store_is_refused(tmp_path: Path) -> None:
    start_store(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match=r"s\.zarr: the store was never finished"):
        open_store(tmp_path / "s.zarr")


def no_store(path: Path) -> dict[str, Callable[[], object]]:
    """What may lie where a store is expected."""
    return {
        "nothing": lambda: None,
        "empty folder": path.mkdir,
        "file": lambda: path.write_text("PK"),
        "zarr group": lambda: zarr.create_group(path, attributes={"title": "mine"}),
        "zarr array": lambda: zarr.create_array(path, shape=(1,), dtype="int8"),
        "zarr 2 group": lambda: zarr.create_group(path, zarr_format=2),
        "below a file": path.parent.rmdir,
    }


@pytest.mark.parametrize("what", no_store(Path()))
def test_what_is_no_store_is_refused(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    no_store(folder / "s.zarr")[what]()
    if what == "below a file":
        folder.write_text("")
    with pytest.raises(StoreError, match=r"s\.zarr: expected a feature store, found none .*dvc"):
        open_store(folder / "s.zarr")


def test_address_without_a_driver_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = {"class": "no_such_driver.FileSystem", "err": "install no_such_driver"}
    monkeypatch.setitem(known_implementations, "nodriver", driver)
    with pytest.raises(StoreError, match="install no_such_driver"):
        open_store("nodriver://bucket/s.zarr")


def test_newer_format_is_refused(copy: Path) -> None:
    edit(copy / "zarr.json", lambda d: d["attributes"][ATTRIBUTE].update(format=FORMAT + 1))
    with pytest.raises(StoreError, match=f"store format {FORMAT + 1}; this version reads format"):
        open_store(copy)


EDITS = {
    "format": True,
    "fingerprint": "0" * 64,
    "made_by": MADE_BY | {"dtype": "float16"},
    "columns": ["image_id", "label"],
    "rows": 20,
    "layers": {"fc6": 3},
    "dtype": "float16",
    "shard_rows": 4,
    "chunk_rows": 4,
    "sha256": {"fc7": ["0" * 64]},
    "digest": "0" * 64,
}


def test_every_attribute_has_its_edit(sound: FeatureStore) -> None:
    assert set(EDITS) == set(sound.attrs)


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize(
    "value", ["edited", 5, -5, 0.5, None, [[1]], {"a": "b"}, "absent"], ids=str
)
def test_edited_attribute_is_refused(copy: Path, name: str, value: object) -> None:
    def change(document: dict[str, Any]) -> None:
        attrs = document["attributes"][ATTRIBUTE]
        if value == "absent":
            del attrs[name]
        else:
            attrs[name] = EDITS[name] if value == "edited" else value

    edit(copy / "zarr.json", change)
    with pytest.raises(StoreError, match=r"copy\.zarr: "):
        open_store(copy)


@pytest.mark.parametrize("value", [None, 5, "store", []], ids=str)
def test_attributes_of_another_kind_are_refused(copy: Path, value: object) -> None:
    edit(copy / "zarr.json", lambda document: document["attributes"].update({ATTRIBUTE: value}))
    with pytest.raises(StoreError, match=r"copy\.zarr: "):
        open_store(copy)


@pytest.mark.parametrize("file", PATHS)
def test_edited_array_metadata_is_refused(copy: Path, file: str) -> None:
    text = (copy / file).read_text()
    keys: list[str] = []
    edit(copy / file, lambda document: keys.extend(document))
    open_store(copy)  # another spelling of the same is none
    for key in keys:
        edit(copy / file, lambda document, key=key: document.update({key: "edited"}))
        with pytest.raises(DamagedError, match="does not match its digest"):
            open_store(copy)
        (copy / file).write_text(text)
    for damaged in ("", "{", "[]", text[:-9]):
        (copy / file).write_text(damaged)
        with pytest.raises(DamagedError, match=r"zarr\.json"):
            open_store(copy)
    (copy / file).unlink()
    with pytest.raises(DamagedError, match=r"zarr\.json is lost"):
        open_store(copy)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("lost", [True, False], ids=["lost", "empty"])
def test_lost_shard_is_refused(copy: Path, layer: str, lost: bool) -> None:
    for shard in (1, 2):
        path = copy / layer / "c" / str(shard) / "0"
        path.unlink() if lost else path.write_bytes(b"")
    with pytest.raises(DamagedError, match=r"2 of 3 shards are lost, the first is 1") as caught:
        open_store(copy)
    assert caught.value.shard == 1


def test_what_made_the_store_is_held_against_the_reader(sound: FeatureStore) -> None:
    open_store(sound.address, MADE_BY)
    open_store(sound.address, {"weights": "seeded"})
    with pytest.raises(StoreError, match=r"made with dtype 'float32', but .* says 'float16'"):
        open_store(sound.address, MADE_BY | {"dtype": "float16"})
    with pytest.raises(StoreError, match=r"made with crop None, but .* says 'roi'"):
        open_store(sound.address, {"crop": "roi"})


@pytest.mark.parametrize("prefix", ["file://", "memory://", "relative", "slash"])
def test_store_opens_by_its_address(
    sound: FeatureStore, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(sound.address)
    monkeypatch.chdir(path.parent)
    addresses = {"relative": path.name, "slash": f"{path}/"}
    memory = fsspec.filesystem("memory")
    memory.put(str(path), str(path), recursive=True)
    try:
        store = open_store(addresses.get(prefix, f"{prefix}{path}"), MADE_BY)
        for layer, block in features_for(SMALL).items():
            np.testing.assert_array_equal(store.features(layer), block)
        assert store.column("image_id").tolist() == columns_for(21)["image_id"].tolist()
        if prefix == "memory://":
            memory.rm(f"{path}/fc7/c/1/0")
            with pytest.raises(DamagedError, match="1 of 3 shards are lost"):
                open_store(f"{prefix}{path}")
    finally:
        memory.rm("/", recursive=True)


@pytest.mark.parametrize("layers", [{"fc6": 4, "fc7": 4}, {"pool5": 6, "fc7": 4}], ids=str)
def test_xarray_names_the_dimensions(tmp_path: Path, layers: dict[str, int]) -> None:
    layout = Layout(5, layers, shard_rows=4, chunk_rows=2)
    make_store(tmp_path / "s.zarr", layout)
    with xr.open_zarr(tmp_path / "s.zarr", consolidated=False) as dataset:
        for layer, block in features_for(layout).items():
            assert dataset[layer].dims[0] == "image"
            assert dataset[layer].dims[1].endswith("feature")
            np.testing.assert_array_equal(dataset[layer], block)
        for name, values in columns_for(5).items():
            assert dataset[name].dims == ("image", "byte")[: values.ndim]
            np.testing.assert_array_equal(dataset[name], values)


def test_publish_replaces_what_was_there_and_clears_leftovers(tmp_path: Path) -> None:
    target = tmp_path / "data" / "features.zarr"
    old = make_store(tmp_path / "old.zarr", Layout(99, {"conv5": 2}, "float32", 4, 2))
    publish(old, target)
    (target / "stray").write_text("")
    for end in ("new", "old"):
        shutil.copytree(target, target.with_name(f".features.zarr.{end}"))
    store = make_store(tmp_path / "s.zarr")
    publish(store, target)
    assert digests(target) == digests(folder_of(store))
    assert [path.name for path in target.parent.iterdir()] == ["features.zarr"]


def test_publish_links_where_it_can(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr")
    publish(store, tmp_path / "features.zarr")
    for file in digests(folder_of(store)):
        assert (folder_of(store) / file).samefile(tmp_path / "features.zarr" / file)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another device than ``tmp_path``."""
    shm = Path("/dev/shm")  # noqa: S108
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second device to write to")
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        yield Path(folder)


def test_publish_copies_to_another_device(tmp_path: Path, elsewhere: Path) -> None:
    store = make_store(elsewhere / "s.zarr")
    publish(store, tmp_path / "features.zarr")
    assert digests(tmp_path / "features.zarr") == digests(folder_of(store))


class Disk:
    """A folder, and a way to make its disk refuse."""

    def __init__(self, folder: Path, refusing: Callable[[], AbstractContextManager[None]]) -> None:
        self.folder, self.refusing = folder, refusing


@contextmanager
def _file_limit() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def _full(folder: Path) -> Iterator[None]:
    ballast = folder / "ballast"
    free = os.statvfs(folder)
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    folders = [path for path in (folder, *folder.rglob("*")) if path.is_dir()]
    user = os.geteuid()
    for path in folders:
        path.chmod(0o555)
    if user == 0:  # who may write anywhere
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        for path in folders:
            path.chmod(0o755)


@contextmanager
def disk_with_a_file_limit() -> Iterator[Disk]:
    with tempfile.TemporaryDirectory() as folder:
        yield Disk(Path(folder), _file_limit)


@contextmanager
def disk_that_is_full() -> Iterator[Disk]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no tmpfs can be mounted here")
        try:
            yield Disk(folder, lambda: _full(folder))
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def read_only_disk() -> Iterator[Disk]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield Disk(folder, lambda: _read_only(folder))


DISKS = [disk_with_a_file_limit, disk_that_is_full, read_only_disk]


@pytest.fixture(params=DISKS, ids=lambda disk: disk.__name__)
def disk(request: pytest.FixtureRequest) -> Iterator[Disk]:
    """A disk that can be made to refuse."""
    with request.param() as made:
        yield made


@contextmanager
def refused(disk: Disk, message: str) -> Iterator[None]:
    """The disk refuses, and the user reads one line that says so."""
    with disk.refusing(), pytest.raises(StoreError, match=message) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_refused_creation_leaves_no_store(disk: Disk, sound: FeatureStore) -> None:
    path = disk.folder / "scratch" / "s.zarr"
    with refused(disk, r"s\.zarr: cannot create a store here .*FC7CACHE_SCRATCH"):
        start_store(path)
    with pytest.raises(StoreError, match="found none"):
        FeatureStore(path)
    assert digests(folder_of(make_store(path))) == digests(Path(sound.address))


def test_refused_shard_loses_no_other(disk: Disk, sound: FeatureStore) -> None:
    store = start_store(disk.folder / "s.zarr", shards=[0])
    with refused(disk, r"cannot write fc6/c/1/0 .*nothing written so far is lost"):
        write(store, features_for(SMALL), [1])
    assert store.present_shards() == [0]
    again = make_store(folder_of(store), shards=[1, 2])
    assert digests(folder_of(again)) == digests(Path(sound.address))


def test_refused_finish_is_finished_later(disk: Disk, sound: FeatureStore) -> None:
    store = start_store(disk.folder / "s.zarr")
    with refused(disk, r"s\.zarr: "):
        store.finish()
    for unfinished in (store, FeatureStore(store.address)):
        assert unfinished.metadata_fault() == "the store was never finished"
    store.finish()
    assert digests(folder_of(store)) == digests(Path(sound.address))


def test_refused_publication_leaves_the_old_store(disk: Disk, elsewhere: Path) -> None:
    target = disk.folder / "features.zarr"
    old = folder_of(make_store(target, Layout(3, {"fc7": 2}, shard_rows=2, chunk_rows=2)))
    before = digests(old)
    store = make_store(elsewhere / "s.zarr")
    elsewhere.chmod(0o755)
    with refused(
        disk, r"features\.zarr: cannot publish .*s\.zarr: make room, or see to the network"
    ):
        publish(store, target)
    assert digests(target) == before
    publish(store, target)
    assert digests(target) == digests(folder_of(store))
    assert sorted(path.name for path in disk.folder.iterdir()) == ["features.zarr"]


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_refused_export_leaves_nothing(disk: Disk, sound: FeatureStore, form: str) -> None:
    store = make_store(disk.folder / "s.zarr")
    path = disk.folder / f"fc7.{form}"
    with refused(disk, rf"fc7\.{form}: cannot be written"):
        export(store, "fc7", path, form)
    assert [path.name for path in disk.folder.iterdir()] == ["s.zarr"]


def test_leftover_that_cannot_be_cleared_is_a_clear_error() -> None:
    with read_only_disk() as disk:
        store = start_store(disk.folder / "s.zarr", shards=[0])
        leftover = folder_of(store) / "fc7" / "c" / "0" / "0.5f1a.partial"
        leftover.write_bytes(b"half")
        with refused(disk, r"s\.zarr: "):
            create_store(folder_of(store), SMALL, MADE_BY, columns_for(SMALL.rows))
        assert leftover.read_bytes() == b"half"
        assert store.present_shards() == [0]


@pytest.mark.parametrize("name", ["file/s.zarr", "x" * 300], ids=["below a file", "long name"])
def test_path_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot create a store here"):
        start_store(tmp_path / name)


def test_bytes_on_disk_do_not_depend_on_what_was_loaded_first() -> None:
    """TensorFlow has a Zstandard of its own, which compresses to other bytes."""
    compressed = (
        "import hashlib, numpy as np\n"
        "from numcodecs.zstd import Zstd\n"
        "x = np.maximum(np.random.default_rng(0).standard_normal(8192, dtype=np.float32), 0)\n"
        "print(hashlib.sha256(Zstd(3).encode(x.tobytes())).hexdigest())\n"
    )

    def after(first: str) -> str:
        code = [sys.executable, "-c", first + compressed]
        done = subprocess.run(code, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout

    assert after("") == after("from pipeline.backend import keras; keras()\n")
