"""Tests of planning and filling, against plain dictionaries and loops."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from stores import columns_for, features_for, make_store, start_store

from cache.errors import DamagedError, StoreError
from cache.fill import fill
from cache.plan import SELF, Source, plan
from cache.spec import Layout
from cache.store import Block
from cache.writer import discard

WIDTHS = {"fc6": 2, "fc7": 3}
CONTENTS = 9


@dataclass(frozen=True)
class Store:
    """What a store is to hold, and which of its shards are there."""

    contents: list[int]
    layout: Layout
    done: list[int]

    @property
    def rows(self) -> list[int]:
        return [row for shard in self.done for row in range(*self.layout.bounds(shard))]

    @property
    def missing(self) -> list[int]:
        return sorted(set(range(self.layout.rows)) - set(self.rows))

    @property
    def known(self) -> set[int]:
        return {self.contents[row] for row in self.rows}

    @property
    def keys(self) -> NDArray[np.uint8]:
        keys = np.zeros((self.layout.rows, 32), np.uint8)
        keys[:, -1] = self.contents
        return keys

    @property
    def source(self) -> Source:
        return Source(self.keys, np.array(self.rows, np.int64))


@st.composite
def stores(draw: st.DrawFn) -> Store:
    contents = draw(st.lists(st.integers(0, CONTENTS - 1), min_size=1, max_size=24))
    chunk_rows = draw(st.integers(1, 3))
    layout = Layout(
        len(contents),
        WIDTHS,
        draw(st.sampled_from(["float32", "float16"])),
        chunk_rows * draw(st.integers(1, 3)),
        chunk_rows,
    )
    return Store(contents, layout, draw(st.lists(st.sampled_from(layout.shards), unique=True)))


def origin(target: Store, sources: list[Store], content: int) -> int | None:
    """Where content must come from: this store, the first source that has it, or nowhere."""
    offers = {SELF: target.known} | {n: source.known for n, source in enumerate(sources)}
    return next((number for number, known in offers.items() if content in known), None)


@settings(max_examples=300, deadline=None)
@given(stores(), st.lists(stores(), max_size=3))
@example(Store([1, 1, 1], Layout(3, WIDTHS, "float32", 2, 1), [1]), [])
def test_every_missing_row_is_forwarded_or_copied_once(target: Store, sources: list[Store]) -> None:
    layout = target.layout
    plans = plan(target.keys, layout, target.done, [source.source for source in sources])
    assert [todo.shard for todo in plans] == sorted(set(layout.shards) - set(target.done))
    planned: list[int] = []
    forwarded: list[int] = []
    for todo in plans:
        here = range(*layout.bounds(todo.shard))
        forward = todo.forward.tolist()
        assert forward == sorted(forward)
        planned += forward
        forwarded += forward
        for copy in todo.copies:
            store = target if copy.source == SELF else sources[copy.source]
            pairs = list(zip(copy.rows.tolist(), copy.source_rows.tolist(), strict=True))
            planned += [row for row, _ in pairs]
            for row, at in pairs:
                content = target.contents[row]
                assert row in here
                assert store.contents[at] == content
                if at in store.rows:
                    assert copy.source == origin(target, sources, content)
                else:
                    assert copy.source == SELF
                    assert at in forwarded
                    assert at < row
    assert sorted(planned) == target.missing
    new = [target.contents[row] for row in forwarded]
    wanted = {target.contents[row] for row in target.missing}
    assert sorted(new) == sorted(c for c in wanted if origin(target, sources, c) is None)


def blocks_of(features: dict[str, Block], sizes: list[int]) -> Iterator[dict[str, Block]]:
    """Cut features into blocks of these sizes, over and over."""
    start, rows = 0, len(features["fc7"])
    for size in cycle(sizes):
        if start >= rows:
            return
        yield {layer: block[start : start + size] for layer, block in features.items()}
        start += size


@settings(max_examples=40, deadline=None)
@given(
    stores(),
    st.lists(stores(), max_size=2),
    st.lists(st.integers(0, 7), min_size=1, max_size=5).filter(any),
)
def test_fill_equals_a_naive_loop(target: Store, sources: list[Store], sizes: list[int]) -> None:
    rng = np.random.default_rng(0)
    # One value per content and store it may come from, so that a wrong origin shows.
    values = {
        number: {layer: rng.random((CONTENTS, d), np.float32) for layer, d in WIDTHS.items()}
        for number in (None, SELF, *range(len(sources)))
    }

    def features(number: int | None, rows: list[int], store: Store) -> dict[str, Block]:
        contents = [store.contents[row] for row in rows]
        return {layer: table[contents] for layer, table in values[number].items()}

    with TemporaryDirectory() as folder:
        opened = [
            start_store(
                Path(folder, f"{number}.zarr"),
                source.layout,
                features(number, list(range(source.layout.rows)), source),
                source.done,
            )
            for number, source in enumerate(sources)
        ]
        store = start_store(
            Path(folder, "target.zarr"),
            target.layout,
            features(SELF, list(range(target.layout.rows)), target),
            target.done,
        )
        plans = plan(target.keys, target.layout, target.done, [s.source for s in sources])
        rows = [row for todo in plans for row in todo.forward.tolist()]
        fill(store, plans, opened, blocks_of(features(None, rows, target), sizes))
        store.finish()
        for layer, width in WIDTHS.items():
            naive = np.empty((target.layout.rows, width), target.layout.dtype)
            for row, content in enumerate(target.contents):
                number = SELF if row in target.rows else origin(target, sources, content)
                value = values[number][layer][content]
                if number not in (None, SELF):
                    value = value.astype(sources[number].layout.dtype)
                naive[row] = value
            np.testing.assert_array_equal(store.features(layer), naive)


def test_blocks_may_be_longer_than_the_plan(tmp_path: Path) -> None:
    layout = Layout(4, WIDTHS, "float32", 4, 2)
    store = start_store(tmp_path / "s.zarr", layout, shards=[])
    features = features_for(Layout(9, WIDTHS))
    fill(store, plan(columns_for(4)["sha256"], layout, []), [], iter([features]))
    np.testing.assert_array_equal(store.features("fc7"), features["fc7"][:4])


def test_damaged_source_is_named_and_earlier_shards_stay(tmp_path: Path) -> None:
    layout = Layout(12, WIDTHS, "float32", 4, 2)
    keys = columns_for(12)["sha256"]
    source = make_store(tmp_path / "source.zarr", layout)
    discard(source.address, 1)
    store = start_store(tmp_path / "target.zarr", layout, shards=[])
    plans = plan(keys, layout, [], [Source(keys, np.arange(12))])
    with pytest.raises(DamagedError, match=r"source\.zarr: fc6/c/1/0 lacks rows") as caught:
        fill(store, plans, [source], iter(()))
    assert (caught.value.address, caught.value.shard) == (source.address, 1)
    assert store.present_shards() == [0]


def test_a_shard_begun_on_is_written_whole_whatever_happens_to_the_base(tmp_path: Path) -> None:
    layout = Layout(8, WIDTHS, "float32", 4, 2)
    store = start_store(tmp_path / "s.zarr", layout, shards=[])
    features = features_for(layout)

    def new() -> Iterator[dict[str, Any]]:
        yield {layer: block[:6] for layer, block in features.items()}
        raise OSError("the GPU fell off")

    with pytest.raises(OSError, match="fell off"):
        fill(store, plan(columns_for(8)["sha256"], layout, []), [], new())
    assert store.present_shards() == [0]
    np.testing.assert_array_equal(store.shard("fc7", 0), features["fc7"][:4])


def test_what_the_writer_refuses_ends_the_filling(tmp_path: Path) -> None:
    layout = Layout(12, WIDTHS, "float16", 4, 2)
    store = start_store(tmp_path / "s.zarr", layout, shards=[])
    features = {layer: np.full((12, width), 1e6) for layer, width in WIDTHS.items()}
    threads = threading.active_count()
    with pytest.raises(StoreError, match="hold values that float16 cannot"):
        fill(store, plan(columns_for(12)["sha256"], layout, []), [], iter([features]))
    assert store.present_shards() == []
    assert threading.active_count() == threads


def test_a_block_without_a_layer_is_an_error_not_whatever_was_in_memory(tmp_path: Path) -> None:
    layout = Layout(4, WIDTHS, "float32", 4, 2)
    store = start_store(tmp_path / "s.zarr", layout, shards=[])
    features = features_for(layout)
    del features["fc7"]
    with pytest.raises(KeyError, match="fc7"):
        fill(store, plan(columns_for(4)["sha256"], layout, []), [], iter([features]))
    assert store.present_shards() == []
