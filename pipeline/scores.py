"""Predictions and labels to the figures that are compared: accuracy, recall, confusion."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix


@dataclass(frozen=True)
class Score:
    """One head on one set of rows. Shares are 0..1; C classes.

    ``accuracy_low`` and ``accuracy_high`` bound Wilson's interval, which takes the rows for
    independent. ``recall`` is None for a class without rows, and ``macro_recall`` the mean of the
    others. ``confusion`` is (C, C) int64, true class by predicted class.
    """

    rows: int
    correct: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_recall: float
    recall: list[float | None]
    confusion: NDArray[np.int64]


def score(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    n_classes: int,
    confidence: float = 0.95,
) -> Score:
    """Score predictions.

    Args:
        labels: (N,) int64, the truth, 0..C-1.
        predicted: (N,) int64, what the head said.
        n_classes: C.
        confidence: Of the interval.

    Raises:
        ValueError: No rows.
    """
    if not len(labels):
        raise ValueError("no rows to score; expected at least one")
    confusion = confusion_matrix(labels, predicted, labels=np.arange(n_classes)).astype(np.int64)
    rows, correct = len(labels), int(np.trace(confusion))
    interval = binomtest(correct, rows).proportion_ci(confidence, method="wilson")
    per_class = confusion.sum(axis=1)
    recall = [
        float(confusion[c, c] / per_class[c]) if per_class[c] else None for c in range(n_classes)
    ]
    return Score(
        rows=rows,
        correct=correct,
        accuracy=correct / rows,
        accuracy_low=float(interval.low),
        accuracy_high=float(interval.high),
        macro_recall=float(np.mean([share for share in recall if share is not None])),
        recall=recall,
        confusion=confusion,
    )
