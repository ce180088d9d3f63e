"""Scores against their definitions and against scikit-learn."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import recall_score

from pipeline.scores import score

C = 5
Pairs = list[tuple[int, int]]
pairs = st.lists(st.tuples(st.integers(0, C - 1), st.integers(0, C - 1)), min_size=1, max_size=60)


def columns(answers: Pairs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    labels, predicted = np.array(answers, np.int64).T
    return labels, predicted


def wilson(correct: int, rows: int, confidence: float) -> tuple[float, float]:
    z = float(norm.ppf(0.5 + confidence / 2))
    share = correct / rows
    centre = share + z**2 / (2 * rows)
    reach = z * sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return (centre - reach) / (1 + z**2 / rows), (centre + reach) / (1 + z**2 / rows)


@settings(deadline=None)
@given(pairs)
def test_confusion_counts_each_pair(answers: Pairs) -> None:
    counts = [[0] * C for _ in range(C)]
    for truth, said in answers:
        counts[truth][said] += 1
    scored = score(*columns(answers), C)
    assert scored.confusion.tolist() == counts
    assert scored.confusion.dtype == np.int64
    assert scored.rows == len(answers)
    assert scored.correct == sum(truth == said for truth, said in answers)
    assert scored.accuracy == scored.correct / scored.rows


@settings(deadline=None)
@given(pairs)
def test_recall_is_scikit_learns_where_there_are_rows(answers: Pairs) -> None:
    labels, predicted = columns(answers)
    scored, present = score(labels, predicted, C), sorted(set(labels))
    shares = [scored.recall[c] for c in present]
    expected = recall_score(labels, predicted, labels=present, average=None)
    np.testing.assert_allclose(shares, expected)
    macro = recall_score(labels, predicted, labels=present, average="macro")
    assert scored.macro_recall == pytest.approx(macro)
    assert all(scored.recall[c] is None for c in set(range(C)) - set(present))


@settings(deadline=None)
@given(st.integers(1, 20_000), st.data(), st.floats(0.5, 0.999))
def test_interval_is_wilsons(rows: int, data: st.DataObject, confidence: float) -> None:
    correct = data.draw(st.integers(0, rows))
    labels = np.zeros(rows, np.int64)
    scored = score(labels, (np.arange(rows) >= correct).astype(np.int64), 2, confidence)
    low, high = wilson(correct, rows, confidence)
    assert scored.accuracy_low == pytest.approx(low, abs=1e-9)
    assert scored.accuracy_high == pytest.approx(high, abs=1e-9)
    assert 0 <= scored.accuracy_low <= scored.accuracy <= scored.accuracy_high <= 1


def test_published_interval() -> None:
    """81 of 263: Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    scored = score(np.zeros(263, np.int64), (np.arange(263) >= 81).astype(np.int64), 2)
    assert (scored.accuracy_low, scored.accuracy_high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows to score; expected at least one"):
        score(np.empty(0, np.int64), np.empty(0, np.int64), C)
