"""A store in the forms that other tools compute with: the same numbers, and the same refusals."""

import pickle
import runpy
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
from conftest import ROOT
from sklearn.model_selection import GroupKFold
from stores import columns_for, digests, features_for, make_store, swap_shards

from cache.errors import DamagedError, StoreError
from cache.load import as_arrays, as_tf_data, as_xarray
from cache.spec import Layout
from cache.store import FeatureStore, open_store
from pipeline.scaling import Scaling
from pipeline.streaming import Streamed, batches

ROWS = 45
LAYOUT = Layout(ROWS, {"fc6": 3, "fc7": 5}, shard_rows=8, chunk_rows=2)
FEATURES = features_for(LAYOUT)
COLUMNS = columns_for(ROWS) | {
    "split": np.where(np.arange(ROWS) % 3 == 1, "test", "train"),
    "track": np.arange(ROWS) // 4,
}
TRAINING = np.flatnonzero(COLUMNS["split"] == "train")


@pytest.fixture(params=["local", "file", "memory"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FeatureStore]:
    """A store on a disk, by its path or its address, and one that is elsewhere."""
    path = tmp_path / "s.zarr"
    make_store(path, LAYOUT, FEATURES, columns=COLUMNS)
    memory = fsspec.filesystem("memory")
    if request.param == "memory":
        memory.put(str(path), "/bucket/s.zarr", recursive=True)
    yield open_store(
        {"local": str(path), "file": path.as_uri(), "memory": "memory://bucket/s.zarr"}[
            request.param
        ]
    )
    if request.param == "memory":
        memory.rm("/", recursive=True)


def local(tmp_path: Path, layout: Layout = LAYOUT, **changes: Any) -> FeatureStore:
    columns = {name: values[: layout.rows] for name, values in COLUMNS.items()} | changes
    make_store(tmp_path / "s.zarr", layout, columns=columns)
    return open_store(tmp_path / "s.zarr")


def test_arrays_are_features_and_labels(store: FeatureStore) -> None:
    x, y = as_arrays(store, "fc7", split="train")
    np.testing.assert_array_equal(x, FEATURES["fc7"][TRAINING])
    np.testing.assert_array_equal(y, COLUMNS["label"][TRAINING])
    x, y = as_arrays(store, ["fc7", "fc6"])
    np.testing.assert_array_equal(x, np.hstack([FEATURES["fc7"], FEATURES["fc6"]]))
    np.testing.assert_array_equal(y, COLUMNS["label"])


def test_groups_come_beside(tmp_path: Path) -> None:
    x, y, groups = as_arrays(local(tmp_path), "fc6", split="train", columns=["label", "track"])
    np.testing.assert_array_equal(groups, COLUMNS["track"][TRAINING])
    for train, val in GroupKFold(3).split(x, y, groups):
        assert not set(groups[train]) & set(groups[val])


def test_half_precision_comes_as_single(tmp_path: Path) -> None:
    layout = Layout(20, {"fc7": 4}, "float16", 8, 2)
    half = features_for(layout)["fc7"]
    store = local(tmp_path, layout)
    x, _ = as_arrays(store, "fc7")
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, half)
    (batch, _) = next(iter(as_tf_data(store, "fc7", batch_rows=20)))
    assert batch.dtype.name == "float32"
    np.testing.assert_array_equal(batch, half)
    assert as_xarray(store)["fc7"].dtype == np.float16


@pytest.mark.parametrize("layers", [{"fc6": 4, "fc7": 4}, {"pool5": 6, "fc7": 4}], ids=str)
def test_the_dataset_is_what_xarray_itself_would_read(
    tmp_path: Path, layers: dict[str, int]
) -> None:
    store = local(tmp_path, Layout(21, layers, shard_rows=8, chunk_rows=2))
    ours = as_xarray(store)
    with xr.open_zarr(tmp_path / "s.zarr", consolidated=False) as theirs:
        theirs = theirs.set_coords(list(store.columns))
        assert set(ours.variables) == set(theirs.variables)
        xr.testing.assert_equal(ours.compute(), theirs.compute())
    assert ours.attrs["fingerprint"] == store.fingerprint
    for layer in layers:
        assert ours[layer].chunks == ((8, 8, 5), (layers[layer],))
        assert ours[layer].dtype == np.float32


def test_the_dataset_computes_as_arrays_do(store: FeatureStore) -> None:
    dataset = as_xarray(store)
    x, label = FEATURES["fc7"], COLUMNS["label"]
    np.testing.assert_array_equal(dataset["fc7"][5:20:3, 1:4], x[5:20:3, 1:4])
    np.testing.assert_array_equal(dataset["fc7"][[40, 3, 17]], x[[40, 3, 17]])
    np.testing.assert_array_equal(dataset["fc7"][-1], x[-1])
    few = dataset.isel(image=dataset["split"] == "train")
    np.testing.assert_array_equal(few["fc7"], x[TRAINING])
    means = dataset["fc7"].groupby(dataset["label"] % 2).mean("image")
    np.testing.assert_allclose(means[1], x[label % 2 == 1].mean(axis=0), rtol=1e-5)


def test_processes_can_compute_with_the_dataset(tmp_path: Path) -> None:
    dataset = pickle.loads(pickle.dumps(as_xarray(local(tmp_path))))
    np.testing.assert_array_equal(dataset["fc7"], FEATURES["fc7"])


def test_the_dataset_reads_only_what_is_computed_with(tmp_path: Path) -> None:
    store = local(tmp_path)
    for layer in LAYOUT.layers:
        for shard in (0, 2, 3, 4, 5):
            (tmp_path / "s.zarr" / layer / "c" / str(shard) / "0").unlink()
    dataset = as_xarray(store)
    np.testing.assert_array_equal(dataset["fc7"][8:16], FEATURES["fc7"][8:16])
    with pytest.raises(DamagedError, match=r"fc7/c/2/0 lacks rows"):
        dataset["fc7"][8:17].compute()


def test_what_xarray_would_take_for_numbers_is_an_error(tmp_path: Path) -> None:
    store = local(tmp_path)
    dataset = as_xarray(store)
    swap_shards(tmp_path / "s.zarr", "fc7")
    with xr.open_zarr(tmp_path / "s.zarr", consolidated=False) as plain:
        np.testing.assert_array_equal(plain["fc7"][:8], FEATURES["fc7"][8:16])  # silently
    with pytest.raises(DamagedError, match=r"fc7/c/0/0 is damaged \(not what was written\)"):
        dataset["fc7"][:8].compute()


def passes(dataset: Any, number: int) -> list[list[tuple[Any, Any]]]:
    return [[(x.numpy(), y.numpy()) for x, y in dataset] for _ in range(number)]


def rows_of(found: list[tuple[Any, Any]]) -> list[int]:
    """Row numbers, which are in the column ``track`` of these stores."""
    return [int(y) for _, labels in found for y in labels]


def numbered(tmp_path: Path) -> FeatureStore:
    return local(tmp_path, track=np.arange(ROWS))


def test_the_stream_is_every_row_once(store: FeatureStore) -> None:
    stream = as_tf_data(store, ["fc6", "fc7"], split="train", batch_rows=7)
    assert stream.cardinality() == 5
    for found in passes(stream, 2):
        assert [len(y) for _, y in found] == [7, 7, 7, 7, 2]
        x, y = as_arrays(store, ["fc6", "fc7"], split="train")
        np.testing.assert_array_equal(np.concatenate([x for x, _ in found]), x)
        np.testing.assert_array_equal(np.concatenate([y for _, y in found]), y)


def test_a_seed_mixes_shards_and_rows_within_anew_in_each_pass(tmp_path: Path) -> None:
    store = numbered(tmp_path)
    orders = []
    for seed in (0, 0, 1):
        stream = as_tf_data(store, "fc7", batch_rows=4, seed=seed, label="track")
        found = passes(stream, 2)
        for one in found:
            rows = rows_of(one)
            np.testing.assert_array_equal(
                np.concatenate([x for x, _ in one]), FEATURES["fc7"][rows]
            )
            assert sorted(rows) == list(range(ROWS))
            shards = [row // 8 for row in rows]
            changes = sum(left != right for left, right in pairwise(shards))
            assert changes == len(LAYOUT.shards) - 1  # one shard after the other
            assert rows != sorted(rows)
        orders.append([rows_of(one) for one in found])
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in [*orders[0], *orders[2]]}) == 4


def test_the_order_is_that_of_a_head_out_of_core(tmp_path: Path) -> None:
    store = numbered(tmp_path)
    stream = as_tf_data(store, "fc7", split="train", batch_rows=4, seed=3, label="track")
    scaling = Scaling("none")
    x = Streamed(scaling, [FEATURES["fc7"]], TRAINING, TRAINING // LAYOUT.shard_rows)
    scaling.fit(x.stored)
    for number, found in enumerate(passes(stream, 2)):
        expected = batches(x, TRAINING, 4, np.random.default_rng([3, number]))
        assert rows_of(found) == [int(row) for _, rows in expected for row in rows]


def test_the_stream_reads_one_shard_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, read = local(tmp_path), []
    features = FeatureStore.features

    def noted(self: FeatureStore, layer: str, rows: Any) -> Any:
        read.append(len(rows))
        return features(self, layer, rows)

    monkeypatch.setattr(FeatureStore, "features", noted)
    stream = iter(as_tf_data(store, "fc7", batch_rows=8))
    read.clear()
    for used in range(1, 5):
        next(stream)
        time.sleep(0.1)  # it has time to go on, and must not
        assert used < len(read) <= used + 2


def test_a_damaged_file_ends_the_stream(tmp_path: Path) -> None:
    import tensorflow as tf

    store = local(tmp_path)
    swap_shards(tmp_path / "s.zarr", "fc7")
    with pytest.raises(tf.errors.UnknownError, match=r"DamagedError: .*fc7/c/0/0 is damaged"):
        list(as_tf_data(store, "fc7"))


@pytest.mark.parametrize("load", [as_arrays, as_tf_data])
def test_what_is_not_there_is_told(tmp_path: Path, load: Any) -> None:
    store = local(tmp_path)
    with pytest.raises(StoreError, match=r"no layer 'fc9'; it has fc6, fc7$"):
        load(store, ["fc7", "fc9"])
    with pytest.raises(StoreError, match=r"at least one layer, got none; it has fc6, fc7$"):
        load(store, [])
    with pytest.raises(StoreError, match=r"no rows of split 'val'; it has test, train$"):
        load(store, "fc7", split="val")
    asked = {"columns": ["klass"]} if load is as_arrays else {"label": "klass"}
    with pytest.raises(
        StoreError, match=r"no column 'klass'; it has image_id, label, sha256, split, track$"
    ):
        load(store, "fc7", **asked)


def test_the_notebook_takes_the_number_of_classes_from_the_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    local(tmp_path, label=np.arange(ROWS) % 5 * 20)  # up to 80, where GTSRB has 43
    monkeypatch.setattr(sys, "argv", ["notebook.py", str(tmp_path / "s.zarr")])
    runpy.run_path(str(ROOT / "examples/notebook.py"))
    assert "% of the rows it was trained on" in capsys.readouterr().out


@pytest.mark.parametrize("batch_rows", [0, -1])
def test_batches_of_no_rows_are_refused(tmp_path: Path, batch_rows: int) -> None:
    with pytest.raises(StoreError, match=f"batch_rows: expected at least 1, got {batch_rows}$"):
        as_tf_data(local(tmp_path), "fc7", batch_rows=batch_rows)


@pytest.mark.parametrize(
    ("missing", "load", "said"),
    [
        ("xarray", as_xarray, r"as_xarray needs xarray: pip install 'fc7cache\[xarray\]'$"),
        ("dask.array", as_xarray, r"as_xarray needs dask.array: pip install 'fc7cache\[xarray\]'$"),
        ("tensorflow", lambda s: as_tf_data(s, "fc7"), "as_tf_data needs tensorflow: pip install"),
    ],
)
def test_a_library_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, load: Any, said: str
) -> None:
    store = local(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(StoreError, match=said):
        load(store)


def test_loading_leaves_the_store_alone(tmp_path: Path) -> None:
    store = local(tmp_path)
    before = digests(tmp_path / "s.zarr")
    as_arrays(store, "fc7")
    as_xarray(store).compute()
    list(as_tf_data(store, "fc7"))
    assert digests(tmp_path / "s.zarr") == before


def test_arrays_need_no_heavy_import() -> None:
    source = (ROOT / "cache/load.py").read_text()
    head = source.partition("def as_arrays")[0].partition("if TYPE_CHECKING")[0]
    assert not {"tensorflow", "xarray", "dask"} & set(head.replace(".", " ").split())
