"""Scores against their definitions and against scikit-learn, scipy and statsmodels."""

from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, recall_score, top_k_accuracy_score

from pipeline.scores import (
    BINS,
    by_group,
    few_tracks,
    reliability,
    score,
    share,
    share_by_track,
    track_interval,
    wilson,
)

C = 7
Pairs = list[tuple[int, int]]
pairs = st.lists(st.tuples(st.integers(0, C - 1), st.integers(0, C - 1)), min_size=1, max_size=60)
Proba = NDArray[np.float64]


def answers(given: Pairs) -> tuple[NDArray[np.int64], NDArray[np.int64], Proba]:
    """Labels, predictions, and probabilities whose largest is the prediction."""
    label, predicted = np.array(given, np.int64).T
    proba = (
        np.random.default_rng(len(given)).dirichlet(np.ones(C), len(given)) + np.eye(C)[predicted]
    )
    return label, predicted, proba / 2


@settings(deadline=None)
@given(pairs)
def test_confusion_counts_each_pair(given: Pairs) -> None:
    counts = [[0] * C for _ in range(C)]
    for truth, said in given:
        counts[truth][said] += 1
    label, _, proba = answers(given)
    scored = score(label, proba)
    assert scored.confusion.tolist() == counts
    assert scored.confusion.dtype == np.int64
    assert scored.rows == len(given)
    assert scored.correct == sum(truth == said for truth, said in given)
    assert scored.accuracy == scored.correct / scored.rows


@settings(deadline=None)
@given(pairs)
def test_recall_is_scikit_learns_where_there_are_rows(given: Pairs) -> None:
    label, predicted, proba = answers(given)
    scored, present = score(label, proba), sorted(set(label))
    shares = [scored.recall[c] for c in present]
    expected = recall_score(label, predicted, labels=present, average=None)
    np.testing.assert_allclose(shares, expected)
    macro = recall_score(label, predicted, labels=present, average="macro")
    assert scored.macro_recall == pytest.approx(macro)
    assert all(scored.recall[c] is None for c in set(range(C)) - set(present))


@settings(deadline=None)
@given(pairs)
def test_top_5_and_likelihood_are_scikit_learns_and_the_definitions(given: Pairs) -> None:
    label, _, proba = answers(given)
    scored = score(label, proba)
    among = [truth in np.argsort(-row)[:5] for truth, row in zip(label, proba, strict=True)]
    assert scored.top5 == pytest.approx(np.mean(among))
    expected = top_k_accuracy_score(label, proba, k=5, labels=range(C))
    assert scored.top5 == pytest.approx(expected)
    assert scored.nll == pytest.approx(-np.mean(np.log(proba[range(len(label)), label])))
    assert scored.nll == pytest.approx(log_loss(label, proba, labels=range(C)))


def test_of_five_classes_the_truth_is_among_the_five_likeliest() -> None:
    assert score(np.array([0, 4]), np.full((2, 5), 0.2)).top5 == 1.0


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(0, 10_000))
def test_calibration_error_is_its_definition(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    top, right = rng.uniform(0, 1, rows), rng.uniform(0, 1, rows) < 0.6
    bins = reliability(right, top)
    places = np.minimum((top * BINS).astype(int), BINS - 1)
    expected = [
        (int((places == b).sum()), top[places == b].mean(), right[places == b].mean())
        for b in range(BINS)
        if (places == b).any()
    ]
    assert [b.rows for b in bins] == [n for n, _, _ in expected]
    np.testing.assert_allclose([b.confidence for b in bins], [c for _, c, _ in expected])
    np.testing.assert_allclose([b.accuracy for b in bins], [a for _, _, a in expected])
    if len(set(right)) == 2:
        true, said = calibration_curve(right, top, n_bins=BINS)
        np.testing.assert_allclose([b.accuracy for b in bins], true)
        np.testing.assert_allclose([b.confidence for b in bins], said)


def test_a_perfectly_sure_and_right_head_is_calibrated() -> None:
    scored = score(np.arange(C), np.eye(C))
    assert (scored.ece, scored.accuracy) == (0.0, 1.0)
    assert scored.nll == pytest.approx(0, abs=1e-12)
    assert score((np.arange(C) + 1) % C, np.eye(C)).ece == 1.0


def published(correct: int, rows: int, confidence: float) -> tuple[float, float]:
    z = float(norm.ppf(0.5 + confidence / 2))
    part = correct / rows
    centre = part + z**2 / (2 * rows)
    reach = z * sqrt(part * (1 - part) / rows + z**2 / (4 * rows**2))
    return (centre - reach) / (1 + z**2 / rows), (centre + reach) / (1 + z**2 / rows)


@settings(deadline=None)
@given(st.integers(1, 20_000), st.data(), st.floats(0.5, 0.999))
def test_interval_is_wilsons(rows: int, data: st.DataObject, confidence: float) -> None:
    correct = data.draw(st.integers(0, rows))
    found = share(np.arange(rows) < correct, confidence)
    assert (found.correct, found.rows) == (correct, rows)
    assert (found.low, found.high) == pytest.approx(published(correct, rows, confidence), abs=1e-9)
    scipys = binomtest(correct, rows).proportion_ci(confidence, method="wilson")
    assert (found.low, found.high) == pytest.approx((scipys.low, scipys.high), abs=1e-9)
    assert 0 <= found.low <= found.share <= found.high <= 1


def test_published_interval() -> None:
    """81 of 263: Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    found = wilson(81, 263)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_without_tracks_the_interval_is_over_rows_with_them_over_tracks() -> None:
    rng = np.random.default_rng(0)
    track = np.repeat(np.arange(60), 30)
    right = np.repeat(rng.uniform(0, 1, 60) < 0.7, 30)  # all frames of a sign alike
    label, proba = np.zeros(1800, np.int64), np.where(right[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
    by_row, by_track = score(label, proba), score(label, proba, track=track)
    assert by_row.accuracy == by_track.accuracy == right.mean()
    assert (by_row.accuracy_low, by_row.accuracy_high) == pytest.approx(
        published(right.sum(), 1800, 0.95)
    )
    # Thirty equal frames say no more than one.
    narrow = by_row.accuracy_high - by_row.accuracy_low
    wide = by_track.accuracy_high - by_track.accuracy_low
    assert wide == pytest.approx(narrow * sqrt(30), rel=0.15)


def test_interval_over_tracks_is_a_plain_loops() -> None:
    rng = np.random.default_rng(1)
    track = rng.integers(0, 40, 500)
    value = (rng.uniform(0, 1, 500) < 0.3 + 0.6 * (track % 2)).astype(float)
    groups = [value[track == t] for t in np.unique(track)]
    means = []
    for _ in range(4000):
        drawn = [groups[k] for k in rng.integers(0, len(groups), len(groups))]
        means.append(np.concatenate(drawn).mean())
    expected = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose(track_interval(value, track), expected, atol=0.012)


def test_interval_over_tracks_is_the_same_each_time_and_covers_the_mean() -> None:
    rng = np.random.default_rng(2)
    value, track = rng.uniform(0, 1, 200), rng.integers(0, 50, 200)
    low, high = track_interval(value, track)
    assert (low, high) == track_interval(value, track)
    assert low < value.mean() < high


def test_a_share_by_track_is_the_mean_with_the_interval_over_tracks() -> None:
    right, track = np.arange(90) % 4 > 0, np.arange(90) // 3
    found = share_by_track(right, track)
    assert (found.correct, found.rows, found.share) == (67, 90, 67 / 90)
    assert (found.low, found.high) == track_interval(right.astype(float), track)


def test_where_no_two_rows_share_a_track_the_interval_is_wilsons() -> None:
    right, apart = np.arange(40) > 0, np.random.default_rng(0).permutation(40)
    assert share_by_track(right, apart) == share_by_track(right, None) == share(right)
    assert share_by_track(right, np.minimum(apart, 38)) != share(right)
    label, _, proba = answers([(1, 1)] * 20)
    assert score(label, proba, track=apart[:20]).top1 == wilson(20, 20)


def test_one_track_has_no_interval() -> None:
    with pytest.raises(ValueError, match=r"one group \(track\) has no interval"):
        track_interval(np.ones(3), np.zeros(3, np.int64))


def test_groups_keep_their_order_and_leave_out_the_empty() -> None:
    right = np.array([True, False, True, True])
    found = by_group(right, np.array(["b", "b", "a", "b"]), ["b", "c", "a"])
    assert {name: (part.correct, part.rows) for name, part in found.items()} == {
        "b": (2, 3),
        "a": (1, 1),
    }
    assert list(found) == ["b", "a"]


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows to score; expected at least one"):
        score(np.empty(0, np.int64), np.empty((0, C)))


@pytest.mark.parametrize(
    ("track", "few"),
    [
        ([0, 0, 1, 1], 2),
        (np.arange(9).repeat(5), 9),
        (np.arange(10).repeat(5), 0),
        ([0, 1, 2], 0),  # images of their own: Wilson's interval, which holds for few
        ([0] * 5, 1),
    ],
)
def test_tracks_too_few_for_an_interval(track: Any, few: int) -> None:
    assert few_tracks(np.array(track)) == few
