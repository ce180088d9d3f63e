"""Which rows heads train on, with their features, and which they are chosen on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cache.store import FeatureStore
from pipeline.classes import CLASS_NAMES
from pipeline.errors import InputError
from pipeline.selection import Data
from pipeline.splits import Fold, k_folds_by_track, split_by_track
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


def training_data(store: FeatureStore, layers: Sequence[str]) -> tuple[NDArray[np.int64], Data]:
    """Row numbers of the training images, and their features, read once."""
    rows = np.flatnonzero(store.column("split") == "train")
    blocks = [store.features(layer, rows) for layer in layers]
    return rows, Data(blocks, store.column("label")[rows], len(CLASS_NAMES))
