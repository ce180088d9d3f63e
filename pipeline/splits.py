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
        val_fraction: Share of tracks (not rows) held out, in (0, 1); but at least one of each class
            is, and at least one of each is left. Where tracks have several classes, at least two
            are, since one has no interval, and two are left.
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
    if per_class.min() < 2:
        raise ValueError(
            f"class number {classes[per_class.argmin()]} has a single group (track); a split by "
            "group needs two"
        )
    if per_class.sum() == len(tracks):
        n_val = min(max(n_val, len(classes)), len(tracks) - len(classes))
        held_out = _stratified(tracks, label[first], n_val, seed)
    elif len(tracks) < 4:
        raise ValueError(
            f"{len(tracks)} groups (tracks) of several classes; expected at least four, two to "
            "hold out and two to train on; add some, or choose split.method k_fold"
        )
    else:
        n_val = min(max(n_val, 2), len(tracks) - 2)
        _, held_out = train_test_split(tracks, test_size=n_val, random_state=seed)
    val = np.isin(track, held_out)
    for side in (label[val], label[~val]):
        if len(np.unique(side)) < len(classes):
            raise ValueError(
                f"split.val_fraction {val_fraction} leaves a class without a group (track) on one "
                "side, as groups have several classes; choose it nearer to 0.5, or another "
                "split.seed"
            )
    return np.flatnonzero(~val), np.flatnonzero(val)


def _stratified(tracks: Rows, label: Rows, n_val: int, seed: int) -> Rows:
    """So many of the tracks, each of one class: of each class its share, and at least one."""
    classes, of_class, count = np.unique(label, return_inverse=True, return_counts=True)
    _, drawn = train_test_split(tracks, test_size=n_val, stratify=label, random_state=seed)
    held = np.bincount(of_class[np.isin(tracks, drawn)], minlength=len(classes))
    if (held > 0).all() and (held < count).all():
        return np.asarray(drawn)
    # To scikit-learn the share of a rare class may be none, or all.
    share = n_val * count / len(tracks)
    held = np.clip(np.round(share).astype(int), 1, count - 1)
    while step := np.sign(n_val - held.sum()):
        free = held < count - 1 if step > 0 else held > 1
        held[np.where(free, step * (share - held), -np.inf).argmax()] += step
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.permutation(tracks[of_class == c])[:n] for c, n in enumerate(held.tolist())]
    )


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
        ValueError: Too few tracks for each class to be in training in every fold, and something to
            be held out.
    """
    classes, per_class = _tracks_of_classes(track, label)
    if folds < 2 or per_class.min() < 2:
        raise ValueError(
            f"{folds} folds, and class number {classes[per_class.argmin()]} has {per_class.min()} "
            "groups (tracks); expected at least two of each"
        )
    rows = np.unique(label, return_counts=True)[1]
    for what, most in (
        (f"{len(np.unique(track))} groups (tracks)", len(np.unique(track))),
        (f"class number {classes[rows.argmin()]} has {rows.min()} images", rows.min()),
    ):
        if most < folds:
            raise ValueError(
                f"split.folds {folds}, and {what}; choose at most {most}, or split.method hold_out"
            )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    found = []
    for train, val in splitter.split(track, label, track):
        if not len(val) or len(np.unique(label[train])) < len(classes):
            raise ValueError(
                f"split.folds {folds}: a fold holds out nothing, or every group (track) of a class;"
                " choose another number of folds, another split.seed, or split.method hold_out"
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
        label: (N,) int64; a track may have rows of several classes.
        fraction: In (0, 1].
        seed: Of the choice.

    Returns:
        Sorted int64 row numbers.
    """
    tracks, rng = np.unique(track), np.random.default_rng(seed)
    classes, per_class = _tracks_of_classes(track, label)
    # Of tracks that several classes share, each class takes the first of one order: the same ones,
    # where it can.
    order = None if per_class.sum() == len(tracks) else rng.permutation(tracks)
    kept = []
    for c in classes:
        mine = np.unique(track[label == c])
        mine = rng.permutation(mine) if order is None else order[np.isin(order, mine)]
        kept.append(mine[: max(1, round(fraction * len(mine)))])
    return np.flatnonzero(np.isin(track, np.concatenate(kept)))


def _tracks_of_classes(
    track: NDArray[np.int64], label: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes, and of how many tracks each has rows."""
    pairs = np.unique(np.stack([label, track]), axis=1)
    classes, per_class = np.unique(pairs[0], return_counts=True)
    return classes, per_class
