"""Carrying out a plan: new features and copied ones into whole shards."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from cache.plan import SELF, ShardPlan
from cache.store import Block, FeatureStore
from cache.writer import StoreWriter

Blocks = Iterator[Mapping[str, Block]]


def fill(
    store: StoreWriter, plans: Sequence[ShardPlan], sources: Sequence[FeatureStore], new: Blocks
) -> dict[str, str]:
    """Write the planned shards, in order.

    A shard is compressed and written while the next one is computed; so two are in memory.

    Args:
        store: To be written.
        plans: What `cache.plan.plan` made for it.
        sources: The stores that the plans' copies number.
        new: Features of all rows to forward, in the plans' order, in blocks of any size: layer to
            (n, D). Blocks may straddle shards.

    Returns:
        The files written, and the sha256 of each; see `StoreWriter.write`.

    Raises:
        DamagedError: A row to be copied does not read back, nor one just written.
        StoreError: A shard cannot be written.
    """
    rows_of, written = _Rows(new), dict[str, str]()
    with ThreadPoolExecutor(1) as writer:  # leaving it waits: a shard begun on is written whole
        writing: Future[dict[str, str]] | None = None
        for todo in plans:
            lo, hi = store.layout.bounds(todo.shard)
            layers = store.layout.layers
            shard = {layer: np.empty((hi - lo, layers[layer]), np.float32) for layer in layers}
            rows_of.into(shard, todo.forward - lo)
            if writing is not None:
                written |= writing.result()  # rows may have to be copied from what it wrote
            for layer, block in shard.items():
                for copy in todo.copies:
                    rows, at = copy.rows - lo, copy.source_rows
                    if copy.source != SELF:
                        block[rows] = sources[copy.source].features(layer, at)
                        continue
                    here = (lo <= at) & (at < hi)  # in this very shard, so not yet on disk
                    block[rows[here]] = block[at[here] - lo]
                    block[rows[~here]] = store.features(layer, at[~here])
            writing = writer.submit(store.write, todo.shard, shard)
        if writing is not None:
            written |= writing.result()
    return written


class _Rows:
    """Blocks of any size, handed on in the sizes asked for."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._block: Mapping[str, Block] = {}
        self._used = self._length = 0  # rows of the block in hand

    def into(self, out: Mapping[str, NDArray[np.float32]], rows: NDArray[np.int64]) -> None:
        """Put the next rows of every layer at these places."""
        done = 0
        while done < len(rows):
            if self._used == self._length:
                came = next(self._blocks, None)
                if came is None:
                    raise ValueError(f"features of {len(rows)} rows were planned, {done} came")
                self._block, self._used = came, 0
                self._length = len(next(iter(came.values())))
            n = min(self._length - self._used, len(rows) - done)
            for layer, whole in out.items():
                whole[rows[done : done + n]] = self._block[layer][self._used : self._used + n]
            self._used, done = self._used + n, done + n
