"""The three Keras layers that AlexNet needs and Keras lacks, on ``keras.ops`` alone."""

from typing import Any

import keras
import numpy as np
from keras import ops

from pipeline import backend
from pipeline.alexnet import Conv


class Preprocess(keras.layers.Layer):
    """(N, H, W, 3) uint8 RGB to what the network was trained on: channel order, mean, scale."""

    def __init__(
        self, mean: tuple[float, ...], std: tuple[float, ...], *, flip: bool, **kwargs: Any
    ) -> None:
        super().__init__(trainable=False, autocast=False, **kwargs)
        self.mean, self.std = np.array(mean, np.float32), np.array(std, np.float32)
        self.flip = flip
        self._preprocessed = backend.fused(self._preprocess)

    def call(self, x: Any) -> Any:
        """Subtract and scale in float32, then hand over in the precision of the layers."""
        return self._preprocessed(x)

    def _preprocess(self, x: Any) -> Any:
        x = ops.cast(ops.flip(x, axis=-1) if self.flip else x, "float32")
        return ops.cast((x - self.mean) / self.std, self.compute_dtype)


class Convolution(keras.layers.Layer):
    """Convolution, bias, ReLU; groups as separate convolutions.

    Keras sends a grouped convolution on the CPU through XLA, which is slower than two plain ones.
    """

    def __init__(self, conv: Conv, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self.conv = conv

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create kernel (H, W, in / groups, out) and bias (out,)."""
        conv, depth = self.conv, int(input_shape[-1] or 0)
        shape = (conv.size, conv.size, depth // conv.groups, conv.filters)
        self.kernel = self.add_weight(shape=shape, trainable=False, name="W")
        self.bias = self.add_weight(shape=(conv.filters,), trainable=False, name="b")

    def call(self, x: Any) -> Any:
        """(N, H, W, in) to (N, H', W', out)."""
        conv, padding = self.conv, self.conv.padding
        if isinstance(padding, int):
            x = ops.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
            padding = "valid"
        parts = zip(
            ops.split(x, conv.groups, axis=-1),
            ops.split(self.kernel, conv.groups, axis=-1),
            strict=True,
        )
        maps = [ops.conv(part, k, strides=conv.stride, padding=padding) for part, k in parts]
        return ops.relu(ops.concatenate(maps, axis=-1) + self.bias)


class LocalResponseNorm(keras.layers.Layer):
    """x / (1 + 2e-5 * sum of squares over 5 neighbouring channels) ** 0.75.

    Caffe states alpha 1e-4 and divides it by its local size of 5; so 2e-5 here. And s ** -0.75 is
    rsqrt(s * sqrt(s)), which is faster. All of it is one loop over memory, which is what it costs.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self._normalised = backend.fused(_normalised)

    def call(self, x: Any) -> Any:
        """(N, H, W, C) to the same."""
        return self._normalised(x)


def _normalised(x: Any) -> Any:
    wide = ops.cast(x, "float32")  # in half precision it would be rounded after every step
    square = ops.pad(ops.square(wide), ((0, 0), (0, 0), (0, 0), (2, 2)))
    s = 1 + 2e-5 * sum(square[..., first : first + x.shape[-1]] for first in range(5))
    return ops.cast(wide * ops.rsqrt(s * ops.sqrt(s)), x.dtype)
