"""Heads that optimise nothing: how far the features go by themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.head import AffineHead, Count, Head, Labels, Watch
from pipeline.scaling import Floats

_QUERY_ROWS = 512  # similarities of so many rows to all training rows are held at once


@dataclass(kw_only=True)
class NearestMeanHead(AffineHead, kind="nearest_mean"):
    """The class whose mean is nearest.

    -|x - m|^2 = 2 m'x - |m|^2 - |x|^2, of which the last term is the same for all classes: so
    it is an affine map.
    """

    def _fit(
        self, x: Floats, y: Labels, validation: tuple[Floats, Labels] | None, watch: Watch
    ) -> None:
        means = np.stack([x[y == c].mean(axis=0) for c in range(y.max() + 1)])
        self.layers_ = [(2 * means.T, -np.square(means).sum(axis=1))]


@dataclass(kw_only=True)
class NeighboursHead(Head, kind="neighbours"):
    """Votes of the k training rows with the largest cosine, which is also the weight of a vote.

    Attributes:
        vectors_: (N, D) float16, training rows of unit length: half the disk, all but
            the same votes.
        labels_: (N,) int64, places in classes_.
    """

    k: Count
    vectors_: NDArray[np.float16] = field(init=False, repr=False)
    labels_: Labels = field(init=False, repr=False)

    def _fit(
        self, x: Floats, y: Labels, validation: tuple[Floats, Labels] | None, watch: Watch
    ) -> None:
        self.vectors_, self.labels_ = _unit(x).astype(np.float16), y

    def scaled_scores(self, x: Floats) -> Floats:
        """(N, D) scaled features to (N, C) logarithms of votes."""
        vectors, k, n_classes = self.vectors_.astype(np.float32), self.k, len(self.classes_)
        k = min(k, len(vectors))
        votes = np.zeros((len(x), n_classes), np.float32)
        for start in range(0, len(x), _QUERY_ROWS):
            cosine = _unit(x[start : start + _QUERY_ROWS]) @ vectors.T
            nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
            weight = np.maximum(np.take_along_axis(cosine, nearest, axis=1), 0)
            rows = np.arange(start, start + len(cosine))[:, None]
            np.add.at(votes, (rows, self.labels_[nearest]), weight)
        # One more vote, shared by all classes: no class is ever impossible.
        return np.asarray(np.log(votes + np.float32(1 / n_classes)))

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything learned, as arrays."""
        return super().state() | {"vectors": self.vectors_, "labels": self.labels_}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take what `state` gave."""
        super().restore(state)
        self.vectors_, self.labels_ = state["vectors"], state["labels"]


def _unit(x: Floats) -> Floats:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(length > 0, length, 1), np.float32)
