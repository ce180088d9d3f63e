"""Carrying out a plan: new features and copied ones into whole shards."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cache.plan import SELF, ShardPlan
from cache.store import Block, FeatureStore
from cache.writer import StoreWriter

Blocks = Iterator[Mapping[str, Block]]


def fill(
    store: StoreWriter, plans: Sequence[ShardPlan], sources: Sequence[FeatureStore], new: Blocks
) -> None:
    """Write the planned shards, in order.

    Args:
        store: To be written.
        plans: What `cache.plan.plan` made for it.
        sources: The stores that the plans' copies number.
        new: Features of all rows to forward, in the plans' order, in blocks of any size: layer to
            (n, D). Blocks may straddle shards.

    Raises:
        DamagedError: A row to be copied does not read back.
        StoreError: A shard cannot be written.
    """
    taken = _Rows(new)
    for todo in plans:
        lo, hi = store.layout.bounds(todo.shard)
        shard = taken.take(len(todo.forward))
        for layer, width in store.layout.layers.items():
            block = np.empty((hi - lo, width), np.float32)
            if len(todo.forward):
                block[todo.forward - lo] = shard[layer]
            for copy in todo.copies:
                rows, at = copy.rows - lo, copy.source_rows
                if copy.source != SELF:
                    block[rows] = sources[copy.source].features(layer, at)
                    continue
                here = (lo <= at) & (at < hi)  # in this very shard, so not yet on disk
                block[rows[here]] = block[at[here] - lo]
                block[rows[~here]] = store.features(layer, at[~here])
            shard[layer] = block
        store.write(todo.shard, shard)


class _Rows:
    """Blocks of any size, handed on in the sizes asked for."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._rest: list[Mapping[str, NDArray[np.floating]]] = []

    def take(self, rows: int) -> dict[str, Block]:
        """The next rows of every layer; empty if none are asked for."""
        held = sum(map(_length, self._rest))
        while held < rows:
            block = next(self._blocks, None)
            if block is None:
                raise ValueError(f"features of {rows} rows were planned, {held} came")
            self._rest.append(block)
            held += _length(self._rest[-1])
        if not rows:
            return {}
        whole = {
            layer: np.concatenate([block[layer] for block in self._rest]) for layer in self._rest[0]
        }
        self._rest = [{layer: block[rows:] for layer, block in whole.items()}]
        return {layer: block[:rows] for layer, block in whole.items()}


def _length(block: Mapping[str, Block]) -> int:
    return len(next(iter(block.values())))
