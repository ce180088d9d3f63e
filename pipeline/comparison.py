"""Whether one head is better than another, on the same images."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from pipeline.scores import Labels, track_interval

Right = NDArray[np.bool_]


@dataclass(frozen=True)
class Pair:
    """Two heads against each other. Shares are 0..1.

    Attributes:
        first: The head with the more test images right (or the one named first).
        second: The other.
        only_first: Test images that only the first gets right.
        only_second: Test images that only the second gets right.
        p: Exact McNemar test: how likely a split as uneven as this is between equal heads. It
            takes images for independent, which frames of one sign are not.
        p_holm: The same after Holm's correction for all pairs.
        significant: Whether p_holm is below 1 - confidence.
        validation_difference: Accuracy of the first minus that of the second on validation.
        validation_low: Lower bound of its interval from the bootstrap over tracks.
        validation_high: Upper bound.
    """

    first: str
    second: str
    only_first: int
    only_second: int
    p: float
    p_holm: float
    significant: bool
    validation_difference: float
    validation_low: float
    validation_high: float


def compare_pairs(
    test: Mapping[str, Right],
    validation: Mapping[str, Right],
    track: Labels,
    *,
    confidence: float = 0.95,
) -> list[Pair]:
    """Compare every two heads.

    Args:
        test: Head to (N,) whether it is right, on the same test rows for all.
        validation: Head to (M,) whether it is right, on the same validation rows for all.
        track: (M,) equal values show the same sign.
        confidence: 1 - confidence is the chance of any false finding among all pairs.

    Returns:
        One entry a pair; heads in order of their test accuracy, best first.
    """
    order = sorted(test, key=lambda name: -int(test[name].sum()))
    pairs = list(combinations(order, 2))
    if not pairs:
        return []
    tables = [
        [
            [int((test[a] & test[b]).sum()), int((test[a] & ~test[b]).sum())],
            [int((~test[a] & test[b]).sum()), int((~test[a] & ~test[b]).sum())],
        ]
        for a, b in pairs
    ]
    p = [float(mcnemar(table, exact=True).pvalue) for table in tables]
    reject, p_holm, _, _ = multipletests(p, alpha=1 - confidence, method="holm")
    found = []
    for k, (a, b) in enumerate(pairs):
        difference = validation[a].astype(np.float64) - validation[b]
        low, high = track_interval(difference, track, confidence)
        found.append(
            Pair(
                first=a,
                second=b,
                only_first=tables[k][0][1],
                only_second=tables[k][1][0],
                p=p[k],
                p_holm=float(p_holm[k]),
                significant=bool(reject[k]),
                validation_difference=float(difference.mean()),
                validation_low=low,
                validation_high=high,
            )
        )
    return found
