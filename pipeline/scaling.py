"""What a head does to the features first. N rows, D features, K components."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd

Floats = NDArray[np.float32]
Features = NDArray[np.floating[Any]]
Blocks = Sequence[Features]  # one (N, D) array for each cached layer; the same rows in all
Kind = Literal["none", "standardize", "l2", "sqrt_l2"]

_POWER_ITERATIONS = 2
_COLUMNS = 512


class Scaling:
    """Cached layers to one matrix, by what was learnt on training rows.

    Each layer by itself, by ``kind``: ``none``; ``standardize``: each feature to deviation 1 over
    the training rows (one that is constant there becomes 0); ``l2``: each row to unit length;
    ``sqrt_l2``: sign(x) sqrt|x|, then unit length (the Hellinger map of Arandjelović and
    Zisserman, CVPR 2012). Then the layers side by side, minus the mean of the training rows:
    activations share a large mean, along which every optimiser crawls. Then, with
    ``components``, rotated onto at most so many leading principal components of the training rows.

    Attributes:
        scale_: (D,) float32, with ``standardize``.
        mean_: (D,) float32; D over all layers.
        basis_: (D, K) float32, with ``components``.
    """

    def __init__(self, kind: Kind, components: int | None = None) -> None:
        """Choose the kind, and the number of components or None for all features as they are."""
        self.kind = kind
        self.components = components

    @property
    def learned(self) -> list[str]:
        """Names of the arrays that this kind learns."""
        wanted = {
            "scale_": self.kind == "standardize",
            "mean_": True,
            "basis_": self.components is not None,
        }
        return [name for name, is_wanted in wanted.items() if is_wanted]

    def fit_transform(self, blocks: Blocks) -> Floats:
        """Learn from training rows, (N, D) for each layer, and scale them."""
        if self.kind == "standardize":
            deviation = np.concatenate([_by_columns(np.std, block) for block in blocks])
            self.scale_: Floats = _inverse(deviation)
        x = self._by_row(blocks)
        self.mean_: Floats = x.mean(axis=0, dtype=np.float64).astype(np.float32)
        x -= self.mean_
        if self.components is None:
            return x
        _, _, axes = randomized_svd(
            x, min(self.components, *x.shape), n_iter=_POWER_ITERATIONS, random_state=0
        )
        self.basis_: Floats = np.ascontiguousarray(axes.T, np.float32)
        return x @ self.basis_

    def fit(self, read: Callable[[], Iterable[Blocks]]) -> None:
        """Learn the same from training rows that come part by part.

        Sums are kept in double precision; what is learnt can differ from what `fit_transform`
        learns in the last place of a float32.

        Args:
            read: Gives the parts, (n, D) for each layer; called for each pass, of which there are
                two with ``standardize``, else one.

        Raises:
            ValueError: Components, which need all rows at once.
        """
        if self.components is not None:
            raise ValueError(f"components: expected None, got {self.components}")
        if self.kind == "standardize":
            self.scale_ = _inverse(_deviation(read()))
        count, total = 0, np.zeros(1)
        for blocks in read():
            x = self._by_row(blocks)
            count, total = count + len(x), total + x.sum(axis=0, dtype=np.float64)
        self.mean_ = (total / count).astype(np.float32)

    def transform(self, blocks: Blocks) -> Floats:
        """(N, D) for each layer to a new (N, D) or (N, K) float32."""
        x = self._by_row(blocks)
        x -= self.mean_
        return x if self.components is None else x @ self.basis_

    def _by_row(self, blocks: Blocks) -> Floats:
        out = np.empty((len(blocks[0]), sum(block.shape[1] for block in blocks)), np.float32)
        start = 0
        for block in blocks:
            part = out[:, start : start + block.shape[1]]
            start += block.shape[1]
            if self.kind == "sqrt_l2":
                np.sqrt(np.abs(block), out=part, dtype=np.float32, casting="same_kind")
                np.copysign(part, block, out=part)
            else:
                part[:] = block
            if self.kind in ("l2", "sqrt_l2"):
                length = np.sqrt(np.einsum("nd,nd->n", part, part, dtype=np.float64))
                part /= np.where(length > 0, length, 1).astype(np.float32)[:, None]
        if self.kind == "standardize":
            out *= self.scale_
        return out


def _deviation(parts: Iterable[Blocks]) -> NDArray[np.float64]:
    """(D,) of all rows, in one pass: Chan, Golub and LeVeque's update of mean and squares."""
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for blocks in parts:
        n = len(blocks[0])
        both = count + n
        away = np.concatenate([_by_columns(np.mean, block) for block in blocks]) - mean
        variance = np.concatenate([_by_columns(np.var, block) for block in blocks])
        squares = squares + n * variance + away**2 * (count * n / both)
        mean = mean + away * (n / both)
        count = both
    return np.sqrt(squares / count)


def _inverse(deviation: NDArray[np.float64]) -> Floats:
    inverse = np.divide(1, deviation, where=deviation > 0, out=np.zeros_like(deviation))
    return inverse.astype(np.float32)


def _by_columns(statistic: Callable[..., Any], block: Features) -> NDArray[np.float64]:
    # A few columns at a time: NumPy makes a copy in double precision of what it is given.
    columns = range(0, block.shape[1], _COLUMNS)
    parts = [statistic(block[:, k : k + _COLUMNS], axis=0, dtype=np.float64) for k in columns]
    return np.concatenate(parts)
