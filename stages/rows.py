"""Which rows of the store heads train on, and which they are chosen on."""

import numpy as np
from numpy.typing import NDArray

from cache.store import FeatureStore
from pipeline.errors import InputError
from pipeline.splits import split_by_track
from stages.params import Params


def training_rows(
    store: FeatureStore, params: Params
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and rows to validate on: different tracks of the training set.

    Raises:
        InputError: Too few tracks.
    """
    rows = np.flatnonzero(store.column("split") == "train")
    track, label = store.column("track")[rows], store.column("label")[rows]
    try:
        train, val = split_by_track(
            track, label, val_fraction=params.split.val_fraction, seed=params.split.seed
        )
    except ValueError as error:
        raise InputError(f"params.yaml: split: {error}") from error
    return rows[train], rows[val]
