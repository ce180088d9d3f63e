"""The rows of a store that are most like given features."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.store import Block, FeatureStore

STEPS = 10**6  # similarities are told apart to so many parts of one
Progress = Callable[[Iterable[Any]], Iterable[Any]]


def most_similar(
    store: FeatureStore,
    queries: Mapping[str, Block],
    wanted: NDArray[np.bool_],
    k: int,
    progress: Progress = iter,
) -> tuple[NDArray[np.int64], Block]:
    """The wanted rows most like each query, by cosine; of equals, the first rows.

    One pass over the store for all queries, a shard at a time: memory does not grow with the
    store. Of several layers the similarity is the mean of their cosines, so each counts alike
    whatever its width and scale. Features that are all zero have cosine 0 with everything.

    Args:
        store: Finished.
        queries: Layer to (Q, D); the layers to compare by.
        wanted: (N,) bool; which rows may be found.
        k: How many to find for each query; fewer come if fewer are wanted.
        progress: Wraps the loop over shards.

    Returns:
        (Q, k) int64 row numbers, the most similar first, and (Q, k) float64 similarities in
        [-1, 1], rounded to six decimals.

    Raises:
        StoreError: No such layer.
        DamagedError: Lost or altered bytes.
        ValueError: Shapes that do not fit, no layer, k below 1.
    """
    rows = store.layout.rows
    if k < 1 or not queries or wanted.shape != (rows,):
        raise ValueError(
            f"expected k of at least 1, a layer, and {rows} rows wanted or not; "
            f"got k {k}, layers {list(queries)}, and {wanted.shape}"
        )
    units = {layer: _unit(block) for layer, block in queries.items()}
    best = np.empty((len(next(iter(units.values()))), 0), np.int64)
    # q (Q, D), x (n, D): features of one layer at unit length
    # s (Q, n): mean over layers of q xᵀ
    # key (Q, n) = row - N round(STEPS s): a whole number per row, no two alike; the smallest is
    # the most similar row, and of equals the first. So a bare partition merges shards exactly,
    # and rows with equal bytes tie whatever the last bits of their sums.
    for shard in progress(store.layout.shards):
        first, end = store.layout.bounds(shard)
        here = first + np.flatnonzero(wanted[first:end])
        if not len(here):
            continue
        s = np.mean([q @ _unit(store.features(layer, here)).T for layer, q in units.items()], 0)
        key = here - rows * np.rint(STEPS * s).astype(np.int64)
        best = np.concatenate([best, key], axis=1)
        if best.shape[1] > k:
            best = np.partition(best, k - 1, axis=1)[:, :k]
    best.sort(axis=1)
    return best % rows, -(best // rows) / STEPS


def _unit(block: Block) -> NDArray[np.float64]:
    """(n, D) to rows of length 1, in double precision; rows of zeros stay zero."""
    unit = block.astype(np.float64)
    length = np.linalg.norm(unit, axis=1, keepdims=True)
    unit /= np.where(length > 0, length, 1)
    return unit
