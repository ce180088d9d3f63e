"""Training and validation rows, divided by track."""

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split


def split_by_track(
    track: NDArray[np.int64], label: NDArray[np.int64], *, val_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into training and validation without dividing a track, stratified by class.

    The frames of one track are near-identical: a split of frames would validate on what it
    trained on.

    Args:
        track: (N,) int64; equal values show the same physical sign.
        label: (N,) int64; a track's class is that of its first row.
        val_fraction: Share of tracks (not rows) held out, in (0, 1).
        seed: Of the shuffle.

    Returns:
        (train, val), sorted int64 row numbers; disjoint, together 0..N-1.

    Raises:
        ValueError: Fraction outside (0, 1), or too few tracks for each class to be on both sides.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction: expected a share in (0, 1), got {val_fraction}")
    tracks, first = np.unique(track, return_index=True)
    classes, per_class = np.unique(label[first], return_counts=True)
    n_val = round(val_fraction * len(tracks))
    if per_class.min() < 2:
        raise ValueError(
            f"class {classes[per_class.argmin()]} has a single track; a split by track needs two"
        )
    if min(n_val, len(tracks) - n_val) < len(classes):
        raise ValueError(
            f"split.val_fraction {val_fraction} of {len(tracks)} tracks leaves fewer than the "
            f"{len(classes)} classes on one side; choose it nearer to 0.5"
        )
    _, held_out = train_test_split(
        tracks, test_size=n_val, stratify=label[first], random_state=seed
    )
    val = np.isin(track, held_out)
    for side in (label[val], label[~val]):
        if len(np.unique(side)) < len(classes):
            raise ValueError(
                f"split.val_fraction {val_fraction} leaves a class without a track on one side; "
                "choose it nearer to 0.5"
            )
    return np.flatnonzero(~val), np.flatnonzero(val)
