"""Paired comparison of heads, against scipy and by hand."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest

from pipeline.comparison import compare_pairs
from pipeline.scores import track_interval

Right = dict[str, NDArray[np.bool_]]
TRACK = np.repeat(np.arange(20), 5)


@pytest.fixture(autouse=True, scope="module")
def _no_garbage_collection() -> Iterator[None]:
    """statsmodels ends Holm's correction with one, half a second where many tests are loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gc.collect", lambda: 0)
        yield


def heads(seed: int, rows: int, accuracies: dict[str, float]) -> Right:
    rng = np.random.default_rng(seed)
    hard = rng.uniform(0, 1, rows)  # the same images are hard for all
    return {k: hard + rng.normal(0, 0.1, rows) < share for k, share in accuracies.items()}


def holm(p: list[float]) -> list[float]:
    """Holm 1979: the k-th smallest of m times m - k + 1, never below one before it."""
    order, adjusted, largest = np.argsort(p, kind="stable"), [0.0] * len(p), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = largest
    return adjusted


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 300))
def test_mcnemar_is_a_binomial_test_and_holm_is_holms(seed: int, rows: int) -> None:
    test = heads(seed, rows, {"a": 0.5, "b": 0.6, "c": 0.65, "d": 0.9})
    validation = heads(seed, 100, dict.fromkeys(test, 0.7))
    found = compare_pairs(test, validation, TRACK)
    assert len(found) == 6
    for pair in found:
        one, other = test[pair.first], test[pair.second]
        assert one.sum() >= other.sum()
        assert pair.only_first == sum(x and not y for x, y in zip(one, other, strict=True))
        assert pair.only_second == sum(y and not x for x, y in zip(one, other, strict=True))
        discordant = pair.only_first + pair.only_second
        expected = binomtest(pair.only_first, discordant).pvalue if discordant else 1.0
        assert pair.p == pytest.approx(expected)
        assert pair.significant == (pair.p_holm < 0.05)
    np.testing.assert_allclose([pair.p_holm for pair in found], holm([pair.p for pair in found]))


def test_differences_on_validation_are_over_tracks() -> None:
    test = heads(0, 200, {"a": 0.5, "b": 0.9})
    validation = heads(1, 100, {"a": 0.5, "b": 0.8})
    (pair,) = compare_pairs(test, validation, TRACK, confidence=0.9)
    difference = validation["b"].astype(float) - validation["a"]
    assert (pair.first, pair.second) == ("b", "a")
    assert pair.validation_difference == pytest.approx(difference.mean())
    expected = track_interval(difference, TRACK, 0.9)
    assert (pair.validation_low, pair.validation_high) == expected


def test_equal_heads_do_not_differ() -> None:
    same = np.array([True, False] * 50)
    (pair,) = compare_pairs({"a": same, "b": same}, {"a": same, "b": same}, TRACK)
    assert (pair.p, pair.p_holm, pair.significant) == (1.0, 1.0, False)
    assert (pair.validation_difference, pair.validation_low, pair.validation_high) == (0, 0, 0)


def test_one_head_makes_no_pair() -> None:
    assert compare_pairs({"a": np.ones(3, bool)}, {"a": np.ones(100, bool)}, TRACK) == []


def test_by_chance_alone_few_comparisons_find_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among heads of equal skill, some pair is called different in about 5 % of comparisons."""
    monkeypatch.setattr("pipeline.scores.RESAMPLES", 9)  # not what is looked at
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(200):
        test = {name: rng.uniform(0, 1, 300) < 0.8 for name in "abcd"}
        validation = {name: np.ones(100, bool) for name in test}
        found += any(pair.significant for pair in compare_pairs(test, validation, TRACK))
    assert found <= 20
