"""What is in a store, in figures."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache.remote import filesystem_of
from cache.store import FeatureStore

BINS = 20
Progress = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class LayerStatistics:
    """One layer's features over all rows.

    ``histogram`` counts the non-zero features in BINS equal bins from ``low`` to ``high``, the
    smallest and the largest of them.
    """

    features: int
    mean: float
    deviation: float
    low: float
    high: float
    zero: float  # share of features that are exactly 0
    dead: int  # features that are 0 in every row
    nbytes: int  # on disk
    ratio: float  # uncompressed to on disk
    histogram: list[int]


def stored_nbytes(store: FeatureStore) -> dict[str, int]:
    """Bytes on disk by array."""
    filesystem, root = filesystem_of(store.address)
    sizes: dict[str, int] = {}
    for path, info in filesystem.find(root, detail=True).items():
        name = path[len(root) :].lstrip("/").partition("/")[0]
        sizes[name] = sizes.get(name, 0) + int(info["size"])
    return sizes


def statistics(store: FeatureStore, progress: Progress = iter) -> dict[str, LayerStatistics]:
    """Read every row, a shard at a time, twice: for the range, then for the histogram.

    Raises:
        DamagedError: Lost or altered bytes.
    """
    nbytes = stored_nbytes(store)
    steps = iter(progress([0] * 2 * len(store.layout.layers) * len(store.layout.shards)))
    result = {}
    for layer, width in store.layout.layers.items():
        total = squares = zeros = 0.0
        low, high, alive = np.inf, -np.inf, np.zeros(width, bool)
        for shard in store.layout.shards:
            next(steps, None)
            block = store.shard(layer, shard).astype(np.float32, copy=False)
            total += float(block.sum(dtype=np.float64))
            squares += float(np.square(block, dtype=np.float64).sum())
            zeros += float((block == 0).sum())
            alive |= (block != 0).any(axis=0)
            some = block[block != 0]
            low = min(low, float(some.min(initial=np.inf)))
            high = max(high, float(some.max(initial=-np.inf)))
        if not alive.any():
            low = high = 0.0
        histogram = np.zeros(BINS, np.int64)
        for shard in store.layout.shards:
            next(steps, None)
            block = store.shard(layer, shard)
            histogram += np.histogram(block[block != 0], BINS, (low, high))[0]
        count = store.layout.rows * width
        plain = count * np.dtype(store.layout.dtype).itemsize
        result[layer] = LayerStatistics(
            features=width,
            mean=total / count,
            deviation=float(np.sqrt(max(0.0, squares / count - (total / count) ** 2))),
            low=low,
            high=high,
            zero=zeros / count,
            dead=int((~alive).sum()),
            nbytes=nbytes[layer],
            ratio=plain / nbytes[layer],
            histogram=histogram.tolist(),
        )
    return result
