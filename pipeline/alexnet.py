"""AlexNet as published, frozen, with named layers and several taps in one pass.

Two networks carry the name. ``bvlc`` is Caffe's `bvlc_alexnet` (Krizhevsky, Sutskever, Hinton,
"ImageNet classification with deep convolutional neural networks", NIPS 2012): grouped
convolutions, local response normalisation before pooling, BGR input. ``torchvision`` is the
single-column network of Krizhevsky, "One weird trick for parallelizing convolutional neural
networks", arXiv:1404.5997. ``narrow`` is bvlc with an eighth of the channels: nothing was ever
published for it, it exists so that tests and dry runs are cheap.

Glossary: N images, H W pixels, D features.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import backend

Weights = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Conv:
    """Convolution and ReLU. ``padding``: "same", "valid" or zeros on each side, in pixels."""

    name: str
    filters: int
    size: int
    stride: int = 1
    padding: Literal["same", "valid"] | int = "same"
    groups: int = 1


@dataclass(frozen=True)
class Norm:
    """Local response normalisation over five neighbouring channels."""

    name: str


@dataclass(frozen=True)
class Pool:
    """Max-pooling 3x3, stride 2, no padding."""

    name: str


@dataclass(frozen=True)
class Dense:
    """Fully connected; ``relu`` is off only for the class scores."""

    name: str
    units: int
    relu: bool = True


Layer = Conv | Norm | Pool | Dense


@dataclass(frozen=True)
class Variant:
    """One published network: its preprocessing and its layers, in order."""

    input_px: int
    channels: Literal["RGB", "BGR"]
    mean: tuple[float, float, float]  # in the order of `channels`, on the scale 0..255
    std: tuple[float, float, float]
    layers: tuple[Layer, ...]


BVLC = Variant(
    input_px=227,
    channels="BGR",
    mean=(104.00698793, 116.66876762, 122.67891434),
    std=(1.0, 1.0, 1.0),
    layers=(
        Conv("conv1", 96, 11, stride=4, padding="valid"),
        Norm("norm1"),
        Pool("pool1"),
        Conv("conv2", 256, 5, groups=2),
        Norm("norm2"),
        Pool("pool2"),
        Conv("conv3", 384, 3),
        Conv("conv4", 384, 3, groups=2),
        Conv("conv5", 256, 3, groups=2),
        Pool("pool5"),
        Dense("fc6", 4096),
        Dense("fc7", 4096),
        Dense("fc8", 1000, relu=False),
    ),
)

TORCHVISION = Variant(
    input_px=224,
    channels="RGB",
    mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
    std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
    layers=(
        Conv("conv1", 64, 11, stride=4, padding=2),
        Pool("pool1"),
        Conv("conv2", 192, 5),
        Pool("pool2"),
        Conv("conv3", 384, 3),
        Conv("conv4", 256, 3),
        Conv("conv5", 256, 3),
        Pool("pool5"),
        Dense("fc6", 4096),
        Dense("fc7", 4096),
        Dense("fc8", 1000, relu=False),
    ),
)


def _narrowed(variant: Variant, factor: int) -> Variant:
    def narrow(layer: Layer) -> Layer:
        if isinstance(layer, Conv):
            return replace(layer, filters=layer.filters // factor)
        return replace(layer, units=layer.units // factor) if isinstance(layer, Dense) else layer

    return replace(variant, layers=tuple(narrow(layer) for layer in variant.layers))


VARIANTS = {"bvlc": BVLC, "torchvision": TORCHVISION, "narrow": _narrowed(BVLC, 8)}
TAPS = ("conv1", "conv2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7", "fc8")
_TAP_PX = 6  # side that the maps of a convolution are pooled to, that of pool5


def layers_up_to(variant: str, taps: Sequence[str]) -> tuple[Layer, ...]:
    """The network's layers as far as the deepest tap; nothing behind it needs computing.

    Raises:
        ValueError: A tap that the network does not have, one named twice, or none.
    """
    for tap in taps:
        if tap not in TAPS:
            raise ValueError(f"no layer {tap!r} to read; choose from {', '.join(TAPS)}")
    if not taps or len(set(taps)) < len(taps):
        raise ValueError(f"expected each layer once, got {', '.join(taps) or 'none'}")
    layers = VARIANTS[variant].layers
    names = [layer.name for layer in layers]
    return layers[: 1 + max(names.index(tap) for tap in taps)]


def _traced(variant: str, taps: Sequence[str]) -> Iterator[tuple[Layer, int, int, int]]:
    """Yield each layer with its input's depth, and the side (px) and depth of its output.

    A fully connected layer has side 1, so that its input's depth counts every feature.
    """
    px, depth = VARIANTS[variant].input_px, 3
    for layer in layers_up_to(variant, taps):
        inputs = depth
        if isinstance(layer, Conv):
            depth = layer.filters
            if layer.padding != "same":
                pad = layer.padding if isinstance(layer.padding, int) else 0
                px = (px + 2 * pad - layer.size) // layer.stride + 1
        elif isinstance(layer, Pool):
            px = (px - 3) // 2 + 1
        elif isinstance(layer, Dense):
            inputs, px, depth = px * px * depth, 1, layer.units
        yield layer, inputs, px, depth


def weight_shapes(variant: str, taps: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights that the taps need: ``conv1_W`` (H, W, in, out), ``conv1_b`` (out,) ….

    Fully connected weights are (in, out), the rows of ``fc6_W`` in H, W, channel order.

    Raises:
        ValueError: A tap that the network does not have.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, inputs, _, depth in _traced(variant, taps):
        if isinstance(layer, Conv):
            shapes[f"{layer.name}_W"] = (layer.size, layer.size, inputs // layer.groups, depth)
        elif isinstance(layer, Dense):
            shapes[f"{layer.name}_W"] = (inputs, depth)
        if isinstance(layer, Conv | Dense):
            shapes[f"{layer.name}_b"] = (depth,)
    return shapes


def tap_widths(variant: str, taps: Sequence[str]) -> dict[str, int]:
    """Layer to D, the number of features that `build` returns of it."""
    widths = {}
    for layer, _, px, depth in _traced(variant, taps):
        while isinstance(layer, Conv) and px > _TAP_PX:
            px = (px - 3) // 2 + 1
        widths[layer.name] = px * px * depth
    return {tap: widths[tap] for tap in taps}


def multiply_adds(variant: str, taps: Sequence[str]) -> int:
    """Of one image, in convolutions and fully connected layers; half as many as operations."""
    total = 0
    for layer, inputs, px, depth in _traced(variant, taps):
        if isinstance(layer, Conv):
            total += px**2 * layer.size**2 * inputs // layer.groups * depth
        elif isinstance(layer, Dense):
            total += inputs * depth
    return total


def build(variant: str, weights: Weights, taps: Sequence[str], precision: str = "float32") -> Any:
    """The frozen network as a Keras model: no gradient, no training mode, no trainable variable.

    The input is (N, H, W, 3) uint8 in RGB, 0..255; the preprocessing of the variant (channel
    order, mean, scale) is part of the graph. The output is a dict of tap to (N, D) float32.

    A convolutional tap (``conv1`` … ``conv5``, after its ReLU) is max-pooled 3/2 until it is 6x6,
    as the network itself pools conv5, and flattened in H, W, channel order; so ``conv5`` and
    ``pool5`` hold the same numbers. ``fc6`` and ``fc7`` are taken after their ReLU, ``fc8``
    before its softmax.

    Args:
        variant: A key of VARIANTS.
        weights: Arrays by name, shaped as `weight_shapes` says.
        taps: Layers to return, from TAPS.
        precision: "float32" or "bfloat16": what the layers compute in; the output is float32.
    """
    keras = backend.keras()
    ops = keras.ops
    # Imports Keras, which takes seconds; the shapes above are wanted without it.
    from pipeline.frozen import Convolution, LocalResponseNorm, Preprocess

    net = VARIANTS[variant]
    image = keras.Input((net.input_px, net.input_px, 3), dtype="uint8", name="image")
    x = Preprocess(net.mean, net.std, flip=net.channels == "BGR", dtype=precision)(image)
    outputs = {}
    for layer in layers_up_to(variant, taps):
        if isinstance(layer, Conv):
            x = Convolution(layer, dtype=precision, name=layer.name)(x)
        elif isinstance(layer, Norm):
            x = LocalResponseNorm(dtype=precision, name=layer.name)(x)
        elif isinstance(layer, Pool):
            x = keras.layers.MaxPooling2D(3, 2, dtype=precision, name=layer.name)(x)
        else:
            if len(x.shape) == 4:
                x = keras.layers.Flatten(dtype=precision)(x)
            activation = "relu" if layer.relu else None
            x = keras.layers.Dense(layer.units, activation, dtype=precision, name=layer.name)(x)
        if layer.name in taps:
            tap = x
            while isinstance(layer, Conv) and tap.shape[1] > _TAP_PX:
                tap = keras.layers.MaxPooling2D(3, 2, dtype=precision)(tap)
            flat = ops.reshape(tap, (-1, math.prod(tap.shape[1:])))
            outputs[layer.name] = ops.stop_gradient(ops.cast(flat, "float32"))
    model = keras.Model(image, {tap: outputs[tap] for tap in taps}, name=f"alexnet_{variant}")
    model.trainable = False
    for layer in layers_up_to(variant, taps):
        if isinstance(layer, Conv | Dense):
            pair = [weights[f"{layer.name}_W"], weights[f"{layer.name}_b"]]
            model.get_layer(layer.name).set_weights(pair)
    return model
