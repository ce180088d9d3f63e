"""The three Keras layers that AlexNet needs and Keras lacks, on ``keras.ops`` alone."""

from typing import Any

import keras
import numpy as np
from keras import ops

from pipeline.alexnet import Conv


class Preprocess(keras.layers.Layer):
    """(N, H, W, 3) uint8 RGB to what the network was trained on: channel order, mean, scale."""

    def __init__(
        self, mean: tuple[float, ...], std: tuple[float, ...], *, flip: bool, **kwargs: Any
    ) -> None:
        super().__init__(trainable=False, autocast=False, **kwargs)
        self.mean, self.std = np.array(mean, np.float32), np.array(std, np.float32)
        self.flip = flip

    def call(self, x: Any) -> Any:
        """Subtract and scale in float32, then hand over in the precision of the layers."""
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

    Caffe states alpha 1e-4 and divides it by its local size of 5; so 2e-5 here. The sum is a
    product with a band matrix (C, C), and s ** -0.75 is rsqrt(s * sqrt(s)): both several times
    faster on a CPU than TensorFlow's own operation.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Lay out the band matrix."""
        channel = np.arange(int(input_shape[-1] or 0))
        self.band = 2e-5 * (abs(channel[:, None] - channel) <= 2).astype(np.float32)

    def call(self, x: Any) -> Any:
        """(N, H, W, C) to the same."""
        s = 1 + ops.matmul(ops.square(x), ops.cast(self.band, self.compute_dtype))
        return x * ops.rsqrt(s * ops.sqrt(s))
