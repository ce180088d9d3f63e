"""A head of every kind, and features on which they learn something."""

from dataclasses import replace
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.gradient import FineTunedHead, MLPHead, SoftmaxHead
from pipeline.head import Head
from pipeline.linear import LogisticHead, RidgeHead
from pipeline.neighbours import NearestMeanHead, NeighboursHead
from pipeline.scaling import Kind

Floats = NDArray[np.float32]
SCALINGS = get_args(Kind)
CLASSES = (1, 12, 14, 38)


def features(rows: int, seed: int, classes: tuple[int, ...] = CLASSES) -> tuple[Floats, Any]:
    """What fc7 is like: no value below zero, a large common mean, classes that overlap.

    The values are such that float16 holds them.
    """
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 1.5, (len(classes), 12))
    kind = np.arange(rows) % len(classes)
    x = np.maximum(4 + centres[kind] + rng.normal(0, 1.5, (rows, 12)), 0)
    return x.astype(np.float16).astype(np.float32), np.array(classes)[kind]


X, Y = features(160, 0)
X_VAL, Y_VAL = features(60, 1)
TEST, _ = features(50, 2)

GRADIENT: dict[str, Any] = {
    "components": None, "learning_rate": 0.05, "weight_decay": 0.0, "batch_rows": 32, "epochs": 6,
    "out_of_core": False, "seed": 0,
}  # fmt: skip
HEADS: dict[str, Head] = {
    "softmax": SoftmaxHead(scaling="sqrt_l2", **GRADIENT),
    "mlp": MLPHead(
        scaling="standardize", hidden=16, dropout=0.1, **GRADIENT | {"learning_rate": 0.03}
    ),
    "fine_tuned": FineTunedHead(
        scaling="none", start="base", dropout=0.1, **GRADIENT | {"learning_rate": 0.01}
    ),
    "logistic": LogisticHead(scaling="l2", components=None, C=10.0, tol=1e-6, max_iter=2000),
    "ridge": RidgeHead(scaling="sqrt_l2", components=None, alpha=0.1),
    "nearest_mean": NearestMeanHead(scaling="l2", components=None),
    "neighbours": NeighboursHead(scaling="l2", components=None, k=5),
}
_RNG = np.random.default_rng(7)
HEADS["fine_tuned"].start_ = [  # type: ignore[attr-defined]
    (_RNG.normal(0, 0.3, (12, 16)).astype(np.float32), np.full(16, 0.1, np.float32)),
    (_RNG.normal(0, 0.3, (16, 10)).astype(np.float32), np.full(10, 0.1, np.float32)),
]
every_head = pytest.mark.parametrize("name", HEADS)
every_scaling = pytest.mark.parametrize("scaling", SCALINGS)


def fresh(name: str, **changes: Any) -> Head:
    """An unfitted head, with other settings."""
    head = replace(HEADS[name], **changes)
    if name == "fine_tuned":
        head.start_ = HEADS[name].start_  # type: ignore[attr-defined]
    return head


def fitted(name: str, x: Any = X, y: Any = Y, validation: Any = None, **changes: Any) -> Head:
    """A head trained on one layer."""
    held_out = ([validation[0]], validation[1]) if validation else None
    return fresh(name, **changes).fit([x], y, held_out)


trained = cache(fitted)  # for tests that only look
