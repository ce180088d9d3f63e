"""Which rows heads train on, with their features, and which they are chosen on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.store import Block, FeatureStore
from pipeline.errors import InputError
from pipeline.head import Head
from pipeline.selection import Data
from pipeline.splits import Fold, k_folds_by_track, split_by_track
from pipeline.views import view_name
from stages.params import Split


def folds_of(track: NDArray[np.int64], label: NDArray[np.int64], split: Split) -> list[Fold]:
    """The folds that params.yaml asks for.

    Args:
        track: (N,) of the training rows.
        label: (N,) of the training rows.
        split: Settings.

    Returns:
        (train, held out): row numbers 0..N-1, for each fold.

    Raises:
        InputError: Too few tracks.
    """
    try:
        if split.method == "k_fold":
            return k_folds_by_track(track, label, folds=split.folds, seed=split.seed)
        return [split_by_track(track, label, val_fraction=split.val_fraction, seed=split.seed)]
    except ValueError as error:
        raise InputError(f"params.yaml: split: {error}") from error


@dataclass(frozen=True)
class OnDisk:
    """Some rows of a layer of the store, read when they are asked for.

    Attributes:
        store: Where they are.
        array: A layer in one view.
        rows: (n,) their numbers there.
    """

    store: FeatureStore
    array: str
    rows: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D)."""
        return len(self.rows), self.store.layout.layers[self.array]

    def __getitem__(self, places: NDArray[np.int64] | slice) -> Block:
        """Those at these places of ``rows``: (m, D)."""
        return self.store.features(self.array, self.rows[places])


def training_data(
    store: FeatureStore, layers: Sequence[str], views: int, n_classes: int, *, on_disk: bool = False
) -> tuple[NDArray[np.int64], Data]:
    """Row numbers of the training images, and their features.

    The plain view is read once, or, if it is to stay on disk, whenever it is asked for; of the
    others only what is held out is read, when it is.
    """
    rows = np.flatnonzero(store.column("split") == "train")
    plain, *others = [
        [OnDisk(store, view_name(layer, view), rows) for layer in layers] for view in range(views)
    ]
    blocks: Sequence[Any] = plain if on_disk else [block[:] for block in plain]
    label, shard = store.column("label")[rows], rows // store.layout.shard_rows
    return rows, Data(blocks, label, n_classes, others, shard)


def images_to_test(
    store: FeatureStore, layers: Sequence[str], view: int, head: Head
) -> Iterator[list[Block]]:
    """Features of the test images in one view, one array a layer.

    They come in one piece; for a head that streams, in a piece a shard.
    """
    rows = np.flatnonzero(store.column("split") == "test")
    shard = rows // store.layout.shard_rows
    pieces = np.split(rows, np.flatnonzero(np.diff(shard)) + 1) if head.streams else [rows]
    for piece in pieces:
        yield [store.features(view_name(layer, view), piece) for layer in layers]
