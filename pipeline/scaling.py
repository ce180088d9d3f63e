"""What a head does to the features first. N rows, D features."""

from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Kind = Literal["none", "standardize", "l2", "sqrt_l2"]


class Scaling:
    """``fit`` on training rows, ``transform`` any rows: scikit-learn's contract, in float32.

    ``standardize``: each feature to mean 0 and deviation 1 over the training rows (a feature that
    is constant there becomes 0). ``l2``: each row to unit length. ``sqrt_l2``: sign(x) sqrt|x|,
    then unit length (the Hellinger map of Arandjelović and Zisserman, CVPR 2012).
    """

    def __init__(self, kind: Kind) -> None:
        """Choose the kind."""
        self.kind = kind

    def fit(self, x: NDArray[np.floating]) -> Self:
        """Learn what the kind needs from training rows, (N, D)."""
        if self.kind == "standardize":
            self.mean_ = x.mean(axis=0, dtype=np.float64).astype(np.float32)
            deviation = x.std(axis=0, dtype=np.float64).astype(np.float32)
            self.scale_ = np.where(deviation > 0, 1 / np.where(deviation > 0, deviation, 1), 0)
        return self

    def transform(self, x: NDArray[np.floating]) -> Floats:
        """(N, D) to a new (N, D) float32."""
        if self.kind == "none":
            return x.astype(np.float32)
        if self.kind == "standardize":
            out: Floats = np.subtract(x, self.mean_, dtype=np.float32)
            out *= self.scale_
            return out
        if self.kind == "sqrt_l2":
            out = np.sqrt(np.abs(x), dtype=np.float32)
            np.copysign(out, x, out=out)
        else:
            out = x.astype(np.float32)
        length = np.sqrt(np.einsum("nd,nd->n", out, out, dtype=np.float64)).astype(np.float32)
        out /= np.where(length > 0, length, 1)[:, None]
        return out
