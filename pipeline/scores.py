"""Labels and probabilities to the figures that are compared.

Glossary: N rows, C classes, B bins.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binned_statistic, bootstrap
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score
from statsmodels.stats.proportion import proportion_confint

TOP = 5
BINS = 15  # of equal width, over confidence; as Guo et al., ICML 2017
RESAMPLES = 2000
FEW_TRACKS = 10  # of fewer, the bootstrap's intervals are known to be too short

Labels = NDArray[np.int64]
Probabilities = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Share:
    """So many of so many rows, as a share 0..1 with the bounds of its interval."""

    correct: int
    rows: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Bin:
    """Rows whose largest probability falls into one bin of the reliability diagram."""

    rows: int
    confidence: float  # mean of the largest probability
    accuracy: float


@dataclass(frozen=True)
class Score:
    """One head on one set of rows. Shares are 0..1.

    Attributes:
        rows: N.
        correct: Rows whose likeliest class is the true one.
        accuracy: Their share (top-1).
        accuracy_low: Lower bound of its interval; see `share_by_track`.
        accuracy_high: Upper bound.
        top5: Share of rows whose true class is among the five likeliest.
        macro_recall: Mean of ``recall`` over classes that have rows.
        nll: Mean negative log-likelihood of the true class, nats.
        ece: Expected calibration error: mean over rows of |accuracy - confidence| of their bin.
        recall: C shares; None for a class without rows.
        confusion: (C, C) int64, true class by predicted class.
        bins: The reliability diagram, by rising confidence; empty bins are left out.
    """

    rows: int
    correct: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    top5: float
    macro_recall: float
    nll: float
    ece: float
    recall: list[float | None]
    confusion: NDArray[np.int64]
    bins: list[Bin]

    @property
    def top1(self) -> Share:
        """Accuracy with its interval."""
        return Share(self.correct, self.rows, self.accuracy, self.accuracy_low, self.accuracy_high)


def score(
    label: Labels, proba: Probabilities, *, confidence: float = 0.95, track: Labels | None = None
) -> Score:
    """Score a head's probabilities.

    Args:
        label: (N,) the truth, 0..C-1.
        proba: (N, C); rows sum to 1.
        confidence: Of the interval of the accuracy.
        track: (N,) equal values show the same sign; None where that is not known. See
            `share_by_track`.

    Raises:
        ValueError: No rows.
    """
    if not len(label):
        raise ValueError("no rows to score; expected at least one")
    classes = np.arange(proba.shape[1])
    predicted = proba.argmax(axis=1)
    right = predicted == label
    confusion = confusion_matrix(label, predicted, labels=classes).astype(np.int64)
    per_class = confusion.sum(axis=1)
    recall = [float(confusion[c, c] / per_class[c]) if per_class[c] else None for c in classes]
    interval = share_by_track(right, track, confidence)
    bins = reliability(right, proba.max(axis=1))
    exact = proba.astype(np.float64)
    return Score(
        rows=len(label),
        correct=interval.correct,
        accuracy=interval.share,
        accuracy_low=interval.low,
        accuracy_high=interval.high,
        top5=float(top_k_accuracy_score(label, proba, k=TOP, labels=classes))
        if len(classes) > TOP
        else 1.0,
        macro_recall=float(np.mean([part for part in recall if part is not None])),
        nll=float(log_loss(label, exact / exact.sum(axis=1, keepdims=True), labels=classes)),
        ece=sum(b.rows * abs(b.accuracy - b.confidence) for b in bins) / len(label),
        recall=recall,
        confusion=confusion,
        bins=bins,
    )


def wilson(correct: int, rows: int, confidence: float = 0.95) -> Share:
    """A share with Wilson's interval, which takes rows for independent; rows > 0."""
    low, high = proportion_confint(correct, rows, 1 - confidence, method="wilson")
    # At 0 and at 1 rounding puts a bound past the share itself.
    part = correct / rows
    return Share(correct, rows, part, min(float(low), part), max(float(high), part))


def share(right: NDArray[np.bool_], confidence: float = 0.95) -> Share:
    """The share of True among (N,) values, N > 0; see `wilson`."""
    return wilson(int(right.sum()), len(right), confidence)


def share_by_track(
    right: NDArray[np.bool_], track: Labels | None, confidence: float = 0.95
) -> Share:
    """The share of True among (N,) values, N > 0, with the interval that suits them.

    Rows of one track are anything but independent samples, so it is the bootstrap over tracks; but
    Wilson's where no two rows share a track, which also holds near 0 and 1, or none is known.
    """
    if track is None or len(np.unique(track)) == len(track):
        return share(right, confidence)
    low, high = track_interval(right.astype(np.float64), track, confidence)
    return Share(int(right.sum()), len(right), float(right.mean()), low, high)


def track_interval(
    value: NDArray[np.float64], track: Labels, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean over rows, resampling whole tracks.

    Args:
        value: (N,) anything with a mean: right or wrong, or the difference of two heads.
        track: (N,) equal values show the same sign.
        confidence: Of the interval.
    """
    _, of_track, rows = np.unique(track, return_inverse=True, return_counts=True)
    total = np.bincount(of_track, weights=value)
    if len(rows) == 1:
        raise ValueError("one group (track) has no interval over groups; expected two or more")

    def mean(total: NDArray[np.float64], rows: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        return np.asarray(total.sum(axis=axis) / rows.sum(axis=axis))

    found = bootstrap(
        (total, rows),
        mean,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=200,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def few_tracks(track: Labels) -> int:
    """How many tracks an interval over them is of, where that is too few to believe it; else 0.

    Args:
        track: (N,) equal values show the same sign. Where no two are equal, the interval is none
            over tracks; see `share_by_track`.
    """
    count = len(np.unique(track))
    return count if count < min(FEW_TRACKS, len(track)) else 0


def reliability(right: NDArray[np.bool_], top: Probabilities) -> list[Bin]:
    """Accuracy against confidence.

    Args:
        right: (N,) whether the likeliest class is the true one.
        top: (N,) its probability, in [0, 1].
    """
    values = [np.ones(len(top)), top.astype(np.float64), right.astype(np.float64)]
    sums = binned_statistic(top, values, "sum", bins=BINS, range=(0, 1)).statistic
    return [Bin(int(n), float(c / n), float(r / n)) for n, c, r in sums.T if n]


def by_group(
    right: NDArray[np.bool_], group: NDArray[Any], names: list[Any], confidence: float = 0.95
) -> dict[Any, Share]:
    """The share of True in each group that has rows, in the order of ``names``."""
    return {name: share(right[group == name], confidence) for name in names if name in group}
