"""Validation by track: no physical sign on both sides, whatever the data look like."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.splits import k_folds_by_track, some_tracks, split_by_frame, split_by_track

Ints = NDArray[np.int64]


@st.composite
def signs(draw: st.DrawFn) -> tuple[Ints, Ints]:
    """Rows of tracks with one class each, shuffled."""
    counts = draw(st.lists(st.integers(2, 12), min_size=1, max_size=6))
    label = np.repeat(np.arange(len(counts)), counts)
    ids = st.lists(st.integers(0, 10**6), min_size=len(label), max_size=len(label), unique=True)
    track = np.array(draw(ids))
    frames = draw(st.lists(st.integers(1, 4), min_size=len(label), max_size=len(label)))
    order = np.random.default_rng(draw(st.integers(0, 9))).permutation(sum(frames))
    return np.repeat(track, frames)[order], np.repeat(label, frames)[order]


fractions = st.floats(0.01, 0.99)
seeds = st.integers(0, 1000)


def sides(data: tuple[Ints, Ints], fraction: float, seed: int) -> tuple[Ints, Ints]:
    """The split; data that cannot be split are passed over."""
    try:
        return split_by_track(*data, val_fraction=fraction, seed=seed)
    except ValueError:
        reject()


@settings(deadline=None)
@given(signs(), fractions, seeds)
def test_no_track_on_both_sides_and_each_row_on_one(
    data: tuple[Ints, Ints], fraction: float, seed: int
) -> None:
    track, _ = data
    train, val = sides(data, fraction, seed)
    assert not set(track[train]) & set(track[val])
    np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(len(track)))
    for side in (train, val):
        assert side.dtype == np.int64
        assert (np.diff(side) > 0).all()


@settings(deadline=None)
@given(signs(), fractions, seeds)
def test_fraction_is_of_tracks(data: tuple[Ints, Ints], fraction: float, seed: int) -> None:
    track, label = data
    _, val = sides(data, fraction, seed)
    n, classes = len(set(track)), len(set(label))
    assert len(set(track[val])) == np.clip(round(fraction * n), classes, n - classes)


@settings(deadline=None, max_examples=300)
@given(signs(), fractions, seeds)
def test_each_class_is_on_both_sides(data: tuple[Ints, Ints], fraction: float, seed: int) -> None:
    _, label = data
    for side in sides(data, fraction, seed):
        assert set(label[side]) == set(label)


@settings(deadline=None)
@given(signs(), seeds)
def test_classes_keep_their_shares(data: tuple[Ints, Ints], seed: int) -> None:
    track, label = data
    _, val = sides(data, 0.5, seed)
    for each in set(label):
        held_out, tracks = (len(set(track[rows][label[rows] == each])) for rows in (val, ...))
        assert abs(held_out - tracks / 2) <= 1


def test_half_of_two_tracks_each_is_possible() -> None:
    track, label = np.arange(8).repeat(3), np.arange(4).repeat(6)
    train, val = split_by_track(track, label, val_fraction=0.5, seed=3)
    assert set(label[train]) == set(label[val]) == {0, 1, 2, 3}


@settings(deadline=None)
@given(signs(), fractions, seeds)
def test_same_seed_same_split(data: tuple[Ints, Ints], fraction: float, seed: int) -> None:
    for one, other in zip(sides(data, fraction, seed), sides(data, fraction, seed), strict=True):
        np.testing.assert_array_equal(one, other)


@settings(deadline=None)
@given(
    st.lists(st.integers(2, 60), min_size=2, max_size=6),
    st.sampled_from([0.02, 0.1, 0.2, 0.5, 0.9]),
    seeds,
)
def test_a_rare_class_is_on_both_sides_wherever_there_is_room(
    counts: list[int], fraction: float, seed: int
) -> None:
    label = np.repeat(np.arange(len(counts)), counts)
    n_val = int(np.clip(round(fraction * len(label)), len(counts), len(label) - len(counts)))
    data = np.arange(len(label)), label
    _, val = split_by_track(*data, val_fraction=fraction, seed=seed)
    assert len(val) == n_val
    held = np.bincount(label[val], minlength=len(counts))
    assert (held > 0).all()
    assert (held < counts).all()
    # None is given more or less than its share, but for what others must have.
    share = n_val * np.array(counts) / len(label)
    forced = np.maximum(1 - share, 0).sum() + np.maximum(share - np.array(counts) + 1, 0).sum()
    assert (abs(held - share) <= 1 + forced).all()


def test_a_rare_class_among_many_is_held_out_by_seed() -> None:
    # scikit-learn's own share of it is none, whatever the seed.
    label = np.repeat([0, 1], [80, 4])
    track = np.random.default_rng(0).permutation(84)
    found = [split_by_track(track, label, val_fraction=0.1, seed=seed)[1] for seed in range(9)]
    assert {tuple(np.bincount(label[val])) for val in found} == {(7, 1)}
    assert len({tuple(val) for val in found}) == 9


def test_another_seed_another_split() -> None:
    track, label = np.arange(100).repeat(2), np.arange(5).repeat(40)
    splits = {tuple(split_by_track(track, label, val_fraction=0.2, seed=s)[1]) for s in range(5)}
    assert len(splits) == 5


TWENTY = np.arange(20), np.arange(4).repeat(5)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 1.5, float("nan")])
def test_fraction_outside_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=rf"expected a share in \(0, 1\), got {fraction}"):
        split_by_track(*TWENTY, val_fraction=fraction, seed=0)


@pytest.mark.parametrize(
    ("fraction", "held_out"), [(0.01, 1), (0.1, 1), (0.4, 2), (0.9, 4), (0.99, 4)]
)
def test_each_class_keeps_a_track_on_either_side(fraction: float, held_out: int) -> None:
    track, label = TWENTY
    _, val = split_by_track(track, label, val_fraction=fraction, seed=0)
    assert np.bincount(label[val]).tolist() == [held_out] * 4


def test_class_of_a_single_track_is_refused() -> None:
    track, label = np.array([7, 7, 7, 8, 9]), np.array([3, 3, 3, 1, 1])
    with pytest.raises(ValueError, match=r"class number 3 has a single group \(track\); a"):
        split_by_track(track, label, val_fraction=0.5, seed=0)


@settings(deadline=None)
@given(signs(), st.integers(2, 6), seeds)
def test_k_folds_hold_each_track_out_once_and_divide_none(
    data: tuple[Ints, Ints], folds: int, seed: int
) -> None:
    track, label = data
    try:
        found = k_folds_by_track(track, label, folds=folds, seed=seed)
    except ValueError:
        reject()
    assert len(found) == folds
    assert sorted(np.concatenate([val for _, val in found])) == list(range(len(track)))
    for train, val in found:
        assert not set(track[train]) & set(track[val])
        assert sorted(np.concatenate([train, val])) == list(range(len(track)))
        assert set(label[train]) == set(label)


@pytest.mark.parametrize(
    ("tracks", "label", "folds", "message"),
    [
        # Three persons show both classes: a fourth and a fifth fold would hold nobody out.
        ([0, 1, 2] * 8, [0, 1] * 12, 5, r"folds 5, and 3 groups \(tracks\); choose at most 3, or"),
        (range(12), [0] * 9 + [1] * 3, 5, "folds 5, and class number 1 has 3 images; choose at mo"),
    ],
)
def test_what_cannot_be_folded_is_told(
    tracks: Sequence[int], label: list[int], folds: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        k_folds_by_track(np.array(tracks), np.array(label), folds=folds, seed=0)


@settings(deadline=None, max_examples=200)
@given(st.data(), st.integers(2, 6), seeds)
def test_folds_of_persons_hold_somebody_out_and_train_on_every_class(
    data: st.DataObject, folds: int, seed: int
) -> None:
    track, label = data.draw(persons())
    try:
        found = k_folds_by_track(track, label, folds=folds, seed=seed)
    except ValueError:
        reject()
    for train, val in found:
        assert len(val)
        assert set(label[train]) == set(label)


def test_k_folds_share_the_classes_out() -> None:
    track = np.repeat(np.arange(100), 3)
    label = np.repeat(np.repeat([0, 1], [80, 20]), 3)
    for _, val in k_folds_by_track(track, label, folds=5, seed=0):
        assert np.bincount(label[val]).tolist() == [48, 12]


@pytest.mark.parametrize(
    ("tracks", "message"),
    [
        ([0, 0, 1, 1, 2, 2], r"class number 1 has 1 groups \(tracks\); expected at"),
        ([0, 1, 2, 3, 4, 5], None),
    ],
)
def test_a_class_of_one_track_cannot_be_folded(tracks: list[int], message: str | None) -> None:
    label = np.array([0, 0, 0, 0, 1, 1]) if message else np.array([0, 0, 0, 1, 1, 1])
    if message:
        with pytest.raises(ValueError, match=message):
            k_folds_by_track(np.array(tracks), label, folds=2, seed=0)
    else:
        assert len(k_folds_by_track(np.array(tracks), label, folds=3, seed=0)) == 3


def test_a_split_by_frame_divides_tracks() -> None:
    track, label = np.repeat(np.arange(40), 30), np.repeat([0, 1], 600)
    train, val = split_by_frame(label, n_val=240, seed=0)
    assert sorted(np.concatenate([train, val])) == list(range(1200))
    assert len(val) == 240
    assert np.bincount(label[val]).tolist() == [120, 120]
    assert set(track[val]) <= set(track[train])  # that is the leak


@settings(deadline=None)
@given(signs(), st.floats(0.01, 1), st.floats(0.01, 1), seeds)
def test_some_tracks_are_whole_nested_and_of_every_class(
    data: tuple[Ints, Ints], one: float, other: float, seed: int
) -> None:
    track, label = data
    small, large = (
        some_tracks(track, label, fraction=fraction, seed=seed) for fraction in sorted((one, other))
    )
    assert set(small) <= set(large)
    for rows in (small, large):
        assert (np.diff(rows) > 0).all()
        assert set(label[rows]) == set(label)
        assert not set(track[rows]) & set(np.delete(track, rows))
    assert len(some_tracks(track, label, fraction=1, seed=seed)) == len(track)


@st.composite
def persons(draw: st.DrawFn) -> tuple[Ints, Ints]:
    """Rows of tracks that show several classes, as persons show several gestures."""
    rows = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=8, max_size=60))
    track, label = np.array(rows).T
    return track, np.unique(label, return_inverse=True)[1]


@settings(deadline=None)
@given(persons(), st.floats(0.1, 0.9), seeds)
def test_tracks_of_several_classes_stay_whole_and_no_class_is_lost(
    data: tuple[Ints, Ints], fraction: float, seed: int
) -> None:
    track, label = data
    train, val = sides(data, fraction, seed)
    assert not set(track[train]) & set(track[val])
    assert set(label[train]) == set(label[val]) == set(label)


def test_a_track_whose_first_row_is_of_a_class_of_its_own_can_be_split() -> None:
    # Each of six persons shows both classes; only one is filmed with the second first.
    track = np.repeat(np.arange(6), 2)
    label = np.array([1, 0] + [0, 1] * 5)
    train, val = split_by_track(track, label, val_fraction=0.3, seed=0)
    assert (len(train), len(val)) == (8, 4)
    for rows, held_out in k_folds_by_track(track, label, folds=3, seed=0):
        assert not set(track[rows]) & set(track[held_out])


@pytest.mark.parametrize(("people", "held_out"), [(4, 2), (6, 2), (8, 2), (20, 4)])
def test_of_persons_who_show_every_class_at_least_two_are_held_out(
    people: int, held_out: int
) -> None:
    track, label = np.repeat(np.arange(people), 3), np.tile(np.arange(3), people)
    train, val = split_by_track(track, label, val_fraction=0.2, seed=0)
    assert (len(np.unique(track[train])), len(np.unique(track[val]))) == (
        people - held_out,
        held_out,
    )


def test_too_few_persons_to_hold_two_out_are_told() -> None:
    track, label = np.repeat(np.arange(3), 3), np.tile(np.arange(3), 3)
    with pytest.raises(ValueError, match=r"^3 groups \(tracks\) of .* at least four, .* k_fold$"):
        split_by_track(track, label, val_fraction=0.2, seed=0)


@settings(deadline=None)
@given(persons(), st.floats(0.01, 1), st.floats(0.01, 1), seeds)
def test_some_persons_are_whole_nested_and_of_every_class(
    data: tuple[Ints, Ints], one: float, other: float, seed: int
) -> None:
    track, label = data
    small, large = (
        some_tracks(track, label, fraction=fraction, seed=seed) for fraction in sorted((one, other))
    )
    assert set(small) <= set(large)
    for rows in (small, large):
        assert set(label[rows]) == set(label)
        assert not set(track[rows]) & set(np.delete(track, rows))
    assert len(some_tracks(track, label, fraction=1, seed=seed)) == len(track)


def test_of_persons_who_show_every_class_no_more_than_the_share_is_taken() -> None:
    track, label = np.repeat(np.arange(40), 3), np.tile(np.arange(3), 40)
    assert len(some_tracks(track, label, fraction=0.1, seed=0)) == 4 * 3
