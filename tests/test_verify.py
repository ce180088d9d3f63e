"""Tests of finding damage, of comparing stores, of figures and exports."""

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from stores import (
    LAYERS,
    MADE_BY,
    SMALL,
    columns_for,
    edit,
    features_for,
    folder_of,
    make_store,
    start_store,
    swap_shards,
)

from cache.describe import BINS, statistics, stored_nbytes
from cache.diff import Difference, diff
from cache.errors import DamagedError, StoreError
from cache.export import export
from cache.spec import Layout
from cache.store import Block, FeatureStore, open_store
from cache.verify import Finding, damaged_shards, verify

TINY = Layout(3, {"fc7": 3}, shard_rows=4, chunk_rows=2)
TINY_FILES = [
    "fc7/c/0/0",
    "image_id/c/0",
    "sha256/c/0/0",
    "zarr.json",
    "fc7/zarr.json",
    "image_id/zarr.json",
    "sha256/zarr.json",
]


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A finished store of two layers and three shards."""
    return folder_of(make_store(tmp_path / "s.zarr"))


def tiny_store(folder: Path) -> Path:
    """The smallest store with text and two-dimensional columns."""
    columns = columns_for(TINY.rows)
    del columns["label"]
    return folder_of(
        make_store(folder / "s.zarr", TINY, columns=columns, made_by={"dtype": "float32"})
    )


def found(path: Path) -> list[Finding]:
    """What `fc7cache verify` finds."""
    return verify(FeatureStore(str(path)))


def test_nothing_is_found_in_a_sound_store(sound: Path) -> None:
    assert verify(open_store(sound), [columns_for(SMALL.rows)]) == []


def test_progress_counts_the_shards_of_every_layer(sound: Path) -> None:
    seen = []
    verify(FeatureStore(str(sound)), progress=lambda steps: seen.extend(steps) or seen)
    assert seen == [(layer, shard) for layer in LAYERS for shard in range(3)]


def passes(path: Path) -> bool:
    """Whether a store looks sound, to who opens it or to who verifies it.

    The only errors that may come are the store's own.
    """
    try:
        opened = open_store(path)
        for layer in opened.layout.layers:
            opened.features(layer)
        for name in opened.columns:
            opened.column(name)
    except StoreError:
        is_open = False
    else:
        is_open = True
    try:
        is_clean = not found(path)
    except StoreError:
        is_clean = False
    return is_open or is_clean


def flips(path: Path) -> Iterator[int]:
    """Flip one bit of every byte in turn."""
    data = path.read_bytes()
    for at, byte in enumerate(data):
        path.write_bytes(data[:at] + bytes([byte ^ 1 << at % 8]) + data[at + 1 :])
        yield at
    path.write_bytes(data)


@pytest.mark.parametrize("file", TINY_FILES)
def test_flipped_bit_never_passes(tmp_path: Path, file: str) -> None:
    store = tiny_store(tmp_path)
    path = store / file
    content = path.read_bytes()
    silent = []
    for at in flips(path):
        if passes(store) and not same_document(path, content):
            silent.append(at)
    assert silent == []
    assert not found(store)
    print(f"{file}: {len(content)} flips")


def same_document(path: Path, content: bytes) -> bool:
    """Whether a file is JSON and says what it said: only white space was altered."""
    try:
        return path.name == "zarr.json" and json.loads(path.read_bytes()) == json.loads(content)
    except ValueError:
        return False


def byte_classes(data: bytes, chunks: int) -> dict[str, list[int]]:
    """Where in a shard's file each kind of byte lies."""
    index = len(data) - 16 * chunks - 4
    spans = [struct.unpack_from("<QQ", data, index + 16 * chunk) for chunk in range(chunks)]
    return {
        "first bytes": [at for offset, _ in spans for at in range(offset, offset + 4)],
        "chunk data": [offset + nbytes // 2 for offset, nbytes in spans],
        "chunk checksum": [at for o, n in spans for at in range(o + n - 4, o + n)],
        "index": list(range(index, len(data) - 4)),
        "index checksum": list(range(len(data) - 4, len(data))),
    }


def test_flip_of_every_kind_of_byte_is_found_in_its_shard(tmp_path: Path) -> None:
    layout = Layout(300, {"fc7": 40}, shard_rows=128, chunk_rows=32)
    store = folder_of(make_store(tmp_path / "s.zarr", layout))
    path = store / "fc7" / "c" / "1" / "0"
    data = path.read_bytes()
    for kind, places in byte_classes(data, chunks=4).items():
        for at in places:
            path.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
            findings = found(store)
            assert damaged_shards(findings) == [1], (kind, at)
            assert "fc7/c/1/0" in findings[0].problem
            with pytest.raises(DamagedError, match=r"fc7/c/1/0 .*repair") as caught:
                open_store(store).features("fc7")
            assert caught.value.shard == 1
        print(f"{kind}: {len(places)} flips")


CUTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "first half": lambda data: data[: len(data) // 2],
    "second half": lambda data: data[len(data) // 2 :],
    "without index": lambda data: data[:-36],
    "without index checksum": lambda data: data[:-4],
    "last byte lost": lambda data: data[:-1],
    "first byte lost": lambda data: data[1:],
    "one byte more": lambda data: data + b"\0",
    "zeros": lambda data: bytes(len(data)),
    "tail of zeros": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("file", TINY_FILES)
def test_file_of_another_length_never_passes(tmp_path: Path, file: str, cut: str) -> None:
    store = tiny_store(tmp_path)
    path = store / file
    path.write_bytes(CUTS[cut](path.read_bytes()))
    assert not passes(store)


@pytest.mark.parametrize("file", TINY_FILES)
def test_lost_file_never_passes(tmp_path: Path, file: str) -> None:
    store = tiny_store(tmp_path)
    (store / file).unlink()
    assert not passes(store)


@pytest.mark.parametrize("name", ["fc7", "image_id", "sha256"])
def test_lost_array_never_passes(tmp_path: Path, name: str) -> None:
    store = tiny_store(tmp_path)
    shutil.rmtree(store / name)
    assert not passes(store)


def test_findings_name_every_damaged_shard_of_every_layer(sound: Path) -> None:
    (sound / "fc6" / "c" / "0" / "0").unlink()
    for layer in LAYERS:
        (sound / layer / "c" / "2" / "0").write_bytes(b"")
    findings = found(sound)
    assert [finding.shard for finding in findings] == [0, 2, 2]
    assert damaged_shards(findings) == [0, 2]


def test_swapped_shards_are_found(sound: Path) -> None:
    swap_shards(sound, "fc7")
    assert damaged_shards(found(sound)) == [0, 1]


@pytest.mark.parametrize("file", ["fc7/c/1/0", "label/c/0", "image_id/c/0", "sha256/c/0/0"])
def test_file_of_another_store_is_found(sound: Path, tmp_path: Path, file: str) -> None:
    columns = {name: values[::-1] for name, values in columns_for(SMALL.rows).items()}
    other = make_store(tmp_path / "b.zarr", SMALL, features_for(SMALL, seed=1), columns=columns)
    shutil.copyfile(folder_of(other) / file, sound / file)
    assert found(sound)


def test_unfinished_store_is_found(tmp_path: Path) -> None:
    findings = found(folder_of(start_store(tmp_path / "s.zarr", shards=[0, 2])))
    assert findings[0] == Finding(-1, "the store was never finished")
    assert damaged_shards(findings) == [1]


@pytest.mark.parametrize("key", ["rows", "layers", "columns", "shard_rows"])
@pytest.mark.parametrize("value", [7, 2.5, [[1]], {"a": "b"}, "x", None, True], ids=str)
def test_edited_attribute_is_found(sound: Path, key: str, value: object) -> None:
    edit(sound / "zarr.json", lambda d: d["attributes"]["fc7cache"].update({key: value}))
    assert not passes(sound)


@pytest.mark.parametrize("name", columns_for(1))
def test_column_unlike_the_index_is_found(sound: Path, name: str) -> None:
    expected = columns_for(SMALL.rows)
    expected[name] = expected[name].copy()
    expected[name][[7, 9]] = expected[name][[3, 3]]
    (finding,) = verify(open_store(sound), [expected])
    assert finding.shard == -1
    assert f"column {name}: 2 rows differ from the index, the first is row 7" in finding.problem
    assert verify(open_store(sound), [{name: columns_for(SMALL.rows)[name]}]) == []


@pytest.mark.parametrize("rows", [SMALL.rows - 1, SMALL.rows + 1])
def test_index_of_another_length_is_found(sound: Path, rows: int) -> None:
    findings = verify(open_store(sound), [columns_for(rows)])
    assert {f.problem for f in findings} == {f"21 rows; the index has {rows}"}


def test_column_that_the_store_lacks_is_found(tmp_path: Path) -> None:
    columns = {"image_id": columns_for(SMALL.rows)["image_id"]}
    store = make_store(tmp_path / "s.zarr", columns=columns)
    assert verify(store, [columns]) == []
    assert verify(store, [columns_for(SMALL.rows)]) != []


def test_column_shorter_than_the_store_is_found(tmp_path: Path) -> None:
    columns = columns_for(SMALL.rows) | {"label": np.arange(SMALL.rows - 1)}
    problems = [
        finding.problem
        for finding in found(folder_of(start_store(tmp_path / "s", columns=columns)))
    ]
    assert "column label has 20 rows; expected 21" in problems


def other(
    path: Path,
    order: NDArray[np.int64] | None = None,
    features: dict[str, Block] | None = None,
    **sizes: int,
) -> FeatureStore:
    """A store of rows of the sound one, in another order and other shards."""
    order = np.arange(SMALL.rows) if order is None else order
    features = features or features_for(SMALL)
    widths = {layer: block.shape[1] for layer, block in features.items()}
    return make_store(
        path,
        Layout(len(order), widths, **({"shard_rows": 8, "chunk_rows": 2} | sizes)),
        {layer: block[order] for layer, block in features.items()},
        columns={name: values[order] for name, values in columns_for(SMALL.rows).items()},
    )


def compare(sound: Path, b: FeatureStore, rtol: float = 0.0) -> Difference:
    """`diff` with the sound store as reference."""
    return diff(open_store(sound), b, rtol)


@pytest.mark.parametrize("shard_rows", [2, 6, 64])
def test_order_and_shards_make_no_difference(sound: Path, tmp_path: Path, shard_rows: int) -> None:
    order = np.random.default_rng(shard_rows).permutation(SMALL.rows)
    b = other(tmp_path / "b.zarr", order, shard_rows=shard_rows)
    result = compare(sound, b)
    assert not result.found
    assert result.made_by == {}
    for layer in result.layers.values():
        assert (layer.rows, layer.identical, layer.largest) == (21, 21, 0.0)


@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-5])
def test_noise_of_known_size_is_measured(sound: Path, tmp_path: Path, size: float) -> None:
    features = {layer: block + 1 for layer, block in features_for(SMALL).items()}
    a = make_store(tmp_path / "a.zarr", features=features)
    noisy = {"fc6": features["fc6"], "fc7": features["fc7"].copy()}
    noisy["fc7"][[4, 17]] *= np.array([[1 - size / 2], [1 + size]], np.float32)
    b = other(tmp_path / "b.zarr", np.arange(SMALL.rows)[::-1], noisy, shard_rows=4)
    for rtol, beyond in [(0, 2), (0.1 * size, 2), (0.9 * size, 1), (1.1 * size, 0)]:
        result = diff(a, b, rtol)
        assert result.found == (beyond > 0)
        assert not diff(a, b, rtol).layers["fc6"].beyond
        layer = result.layers["fc7"]
        assert (layer.identical, layer.beyond) == (19, beyond)
        assert layer.largest == pytest.approx(size, rel=0.02)
        assert layer.largest_at == columns_for(SMALL.rows)["image_id"][17]
        apart = np.abs(noisy["fc7"].astype(float) - features["fc7"])
        assert layer.largest_absolute == pytest.approx(apart.max())


def test_zero_row_against_another_is_infinitely_far(tmp_path: Path) -> None:
    features = features_for(SMALL)
    features["fc7"][3] = 0
    a = make_store(tmp_path / "a.zarr", features=features)
    features = {layer: block.copy() for layer, block in features.items()}
    features["fc7"][3, 0] = 1e-30
    layer = diff(a, make_store(tmp_path / "b.zarr", features=features), 1e9).layers["fc7"]
    assert (layer.beyond, layer.largest, layer.largest_absolute) == (1, np.inf, np.float32(1e-30))


def test_float16_lies_within_its_rounding(sound: Path, tmp_path: Path) -> None:
    layout = Layout(21, LAYERS, "float16", 8, 2)
    features = {layer: b.astype(np.float16) for layer, b in features_for(SMALL).items()}
    b = make_store(tmp_path / "b.zarr", layout, features, made_by=MADE_BY | {"dtype": "float16"})
    assert compare(sound, b).found
    result = compare(sound, b, rtol=2**-11)
    assert not result.found
    assert result.made_by == {"dtype": ("float32", "float16")}


def test_rows_of_one_store_only_are_listed(sound: Path, tmp_path: Path) -> None:
    ids = columns_for(SMALL.rows)["image_id"].tolist()
    result = compare(sound, other(tmp_path / "b.zarr", np.arange(20, 2, -1)))
    assert (result.only_a, result.only_b) == (ids[:3], [])
    assert result.layers["fc7"].rows == 18
    assert result.found
    back = diff(FeatureStore(str(tmp_path / "b.zarr")), open_store(sound), 0)
    assert (back.only_a, back.only_b) == ([], ids[:3])


def test_stores_without_a_shared_row_can_be_compared(sound: Path, tmp_path: Path) -> None:
    columns = columns_for(SMALL.rows)
    columns["image_id"] = np.char.add("x", columns["image_id"])
    result = compare(sound, make_store(tmp_path / "b.zarr", columns=columns))
    assert len(result.only_a) == len(result.only_b) == SMALL.rows
    assert result.layers["fc7"].rows == 0
    assert result.found


def test_layers_of_one_store_only_are_listed(sound: Path, tmp_path: Path) -> None:
    features = features_for(Layout(SMALL.rows, {"conv5": 4})) | {"fc7": features_for(SMALL)["fc7"]}
    result = compare(sound, other(tmp_path / "b.zarr", features=features))
    assert (result.layers_only_a, result.layers_only_b) == (["fc6"], ["conv5"])
    assert [*result.layers] == ["fc7"]
    assert result.found


def test_layer_of_another_width_is_a_difference(sound: Path, tmp_path: Path) -> None:
    features = features_for(SMALL)
    features["fc7"] = features["fc7"][:, :4]
    assert compare(sound, other(tmp_path / "b.zarr", features=features), rtol=np.inf).found


def test_columns_that_differ_are_counted(sound: Path, tmp_path: Path) -> None:
    columns = columns_for(SMALL.rows)
    columns["label"] = columns["label"] + (np.arange(SMALL.rows) == 4)
    columns["sha256"] = columns["sha256"].copy()
    columns["sha256"][[1, 2], [0, 31]] ^= 1
    result = compare(sound, make_store(tmp_path / "b.zarr", columns=columns))
    assert result.columns == {"label": 1, "sha256": 2}
    assert result.found


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_statistics_equal_those_of_the_whole_array(tmp_path: Path, dtype: str) -> None:
    layout = Layout(50, {"fc6": 7, "fc7": 4}, dtype, 16, 8)
    features = features_for(layout)
    features["fc7"][:, 2] = 0
    features["fc7"][-1, 0] = 100
    store = make_store(tmp_path / "s.zarr", layout, features)
    figures = statistics(store)
    sizes = {
        name: sum(f.stat().st_size for f in (folder_of(store) / name).rglob("*") if f.is_file())
        for name in layout.layers
    }
    assert stored_nbytes(store).items() >= sizes.items()
    for layer, block in features.items():
        values, got = block.astype(np.float64), figures[layer]
        alive = values[values != 0]
        assert got.features == block.shape[1]
        assert got.mean == pytest.approx(values.mean())
        assert got.deviation == pytest.approx(values.std())
        assert got.zero == pytest.approx((values == 0).mean())
        assert got.dead == (values == 0).all(axis=0).sum()
        assert (got.nbytes, got.ratio) == (sizes[layer], block.nbytes / sizes[layer])
        assert sum(got.histogram) == len(alive)
        assert (got.low, got.high) == (alive.min(), alive.max())
        assert got.histogram == np.histogram(alive, BINS, (got.low, got.high))[0].tolist()
    assert figures["fc7"].dead == 1


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_statistics_of_a_constant_are_finite(tmp_path: Path, value: float) -> None:
    features = {layer: np.full((21, width), value, np.float32) for layer, width in LAYERS.items()}
    figures = statistics(make_store(tmp_path / "s.zarr", features=features))["fc7"]
    assert (figures.mean, figures.deviation) == (value, 0)
    assert figures.dead == (5 if value == 0 else 0)
    assert sum(figures.histogram) == (0 if value == 0 else 105)
    assert np.isfinite([figures.low, figures.high]).all()


def test_statistics_of_a_damaged_store_are_refused(sound: Path) -> None:
    (sound / "fc7" / "c" / "1" / "0").unlink()
    with pytest.raises(DamagedError, match=r"fc7/c/1/0 lacks rows"):
        statistics(FeatureStore(str(sound)))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_export_reads_back_equal(tmp_path: Path, form: str, dtype: str) -> None:
    layout = Layout(21, LAYERS, dtype, 8, 2)
    features, columns = features_for(layout), columns_for(21)
    store = make_store(tmp_path / "s.zarr", layout, features)
    path = tmp_path / f"fc7.{form}"
    path.write_bytes(b"an older export")
    export(store, "fc7", path, form)
    if form == "npz":
        with np.load(path, allow_pickle=False) as archive:
            read = dict(archive)
    else:
        table = pq.read_table(path)
        read = {name: np.array(table[name].to_pylist()) for name in table.column_names}
        read["features"] = read["features"].astype(dtype)
        digest = [bytes.fromhex(text) for text in read["sha256"]]
        read["sha256"] = np.frombuffer(b"".join(digest), np.uint8).reshape(21, 32)
    assert read["features"].dtype == dtype
    np.testing.assert_array_equal(read.pop("features"), features["fc7"])
    assert sorted(read) == sorted(columns)
    for name, values in read.items():
        np.testing.assert_array_equal(values, columns[name])
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, "s.zarr"]


@pytest.mark.parametrize(
    ("layer", "name", "form", "message"),
    [
        ("fc8", "x.npz", "npz", r"no layer 'fc8'; it has fc6, fc7"),
        ("fc7", "x.csv", "csv", r"csv.*npz"),
        ("fc7", "nowhere/x.npz", "npz", r"x\.npz: cannot be written"),
        ("fc7", "file/x.npz", "npz", r"x\.npz: cannot be written"),
        ("fc7", "file/x.parquet", "parquet", r"x\.parquet: cannot be written"),
    ],
)
def test_export_that_cannot_be_is_refused(
    sound: Path, layer: str, name: str, form: str, message: str
) -> None:
    (sound.parent / "file").write_text("")
    with pytest.raises(StoreError, match=message):
        export(open_store(sound), layer, sound.parent / name, form)
    assert sorted(p.name for p in sound.parent.iterdir()) == ["file", "s.zarr"]


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_export_of_a_damaged_store_leaves_nothing(sound: Path, form: str) -> None:
    (sound / "fc7" / "c" / "2" / "0").unlink()
    with pytest.raises(DamagedError, match=r"fc7/c/2/0"):
        export(FeatureStore(str(sound)), "fc7", sound.parent / "x", form)
    assert [p.name for p in sound.parent.iterdir()] == ["s.zarr"]
