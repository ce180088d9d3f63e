"""Training and validation rows, divided by track; and, to show what that is for, by frame.

A fold is a pair of sorted int64 row numbers, (train, val).
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

Rows = NDArray[np.int64]
Fold = tuple[Rows, Rows]


def split_by_track(
    track: NDArray[np.int64], label: NDArray[np.int64], *, val_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into training and validation without dividing a track, stratified by class.

    The frames of one track are near-identical: a split of frames would validate on what it
    trained on.

    Args:
        track: (N,) int64; equal values show the same physical sign.
        label: (N,) int64; stratified by, unless a track has rows of several classes.
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
    classes, per_class = _tracks_of_classes(track, label)
    n_val = round(val_fraction * len(tracks))
    whole = per_class.sum() == len(tracks)
    if per_class.min() < 2:
        raise ValueError(
            f"class {classes[per_class.argmin()]} has a single track; a split by track needs two"
        )
    if min(n_val, len(tracks) - n_val) < (len(classes) if whole else 1):
        raise ValueError(
            f"split.val_fraction {val_fraction} of {len(tracks)} tracks leaves fewer than the "
            f"{len(classes)} classes on one side; choose it nearer to 0.5"
        )
    _, held_out = train_test_split(
        tracks, test_size=n_val, stratify=label[first] if whole else None, random_state=seed
    )
    val = np.isin(track, held_out)
    for side in (label[val], label[~val]):
        if len(np.unique(side)) < len(classes):
            raise ValueError(
                f"split.val_fraction {val_fraction} leaves a class without a track on one side; "
                "choose it nearer to 0.5, or another split.seed"
            )
    return np.flatnonzero(~val), np.flatnonzero(val)


def k_folds_by_track(
    track: NDArray[np.int64], label: NDArray[np.int64], *, folds: int, seed: int
) -> list[Fold]:
    """As `split_by_track`, but so that each row is in validation exactly once.

    Args:
        track: (N,) int64; equal values show the same physical sign.
        label: (N,) int64, stratified by.
        folds: How many, at least 2.
        seed: Of the shuffle.

    Raises:
        ValueError: Too few tracks for each class to be on both sides of every fold.
    """
    classes, per_class = _tracks_of_classes(track, label)
    if folds < 2 or per_class.min() < 2:
        raise ValueError(
            f"{folds} folds, and class {classes[per_class.argmin()]} has {per_class.min()} tracks; "
            "expected at least two of each"
        )
    if (rows := np.unique(label, return_counts=True)[1].min()) < folds:
        raise ValueError(f"{folds} folds, and a class of {rows} images; choose fewer folds")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    found = []
    for train, val in splitter.split(track, label, track):
        if len(np.unique(label[train])) < len(classes):
            raise ValueError(
                f"split.folds {folds} leaves a class without a training track in one fold; choose "
                "more folds, or another split.seed"
            )
        found.append((train.astype(np.int64), val.astype(np.int64)))
    return found


def split_by_frame(label: NDArray[np.int64], *, n_val: int, seed: int) -> Fold:
    """Split rows at random, stratified by class: the mistake that splits by track avoid.

    Args:
        label: (N,) int64.
        n_val: Rows held out.
        seed: Of the shuffle.
    """
    train, val = train_test_split(
        np.arange(len(label)), test_size=n_val, stratify=label, random_state=seed
    )
    return np.sort(train), np.sort(val)


def some_tracks(
    track: NDArray[np.int64], label: NDArray[np.int64], *, fraction: float, seed: int
) -> Rows:
    """Rows of a share of the tracks: of each class the same share, but at least one track.

    For one seed, the tracks of a smaller fraction are among those of a larger one.

    Args:
        track: (N,) int64.
        label: (N,) int64; a track's class is that of its first row.
        fraction: In (0, 1].
        seed: Of the choice.

    Returns:
        Sorted int64 row numbers.
    """
    tracks, first = np.unique(track, return_index=True)
    rng = np.random.default_rng(seed)
    kept = []
    for c in np.unique(label[first]):
        mine = rng.permutation(tracks[label[first] == c])
        kept.append(mine[: max(1, round(fraction * len(mine)))])
    return np.flatnonzero(np.isin(track, np.concatenate(kept)))


def _tracks_of_classes(
    track: NDArray[np.int64], label: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes, and of how many tracks each has rows."""
    pairs = np.unique(np.stack([label, track]), axis=1)
    classes, per_class = np.unique(pairs[0], return_counts=True)
    return classes, per_class
