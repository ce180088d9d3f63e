"""Weights as Caffe and PyTorch keep them, channels first, turned into the order used here."""

from typing import Any

from numpy.typing import NDArray

_POOL5_PX = 6  # side of the maps that fc6 reads, in every AlexNet


def channels_last(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Reorder one array.

    Args:
        name: As `pipeline.alexnet.weight_shapes` spells it.
        array: A convolution's (out, in, H, W), a fully connected layer's (out, in), a bias (out,).

    Returns:
        (H, W, in, out), (in, out), (out,). The inputs of ``fc6_W``, pool5's features, come in
        channel, H, W order and leave in H, W, channel order.
    """
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if name == "fc6_W" and array.ndim == 2 and array.shape[1] % _POOL5_PX**2 == 0:
        out, inputs = array.shape
        maps = array.reshape(out, inputs // _POOL5_PX**2, _POOL5_PX, _POOL5_PX)
        return maps.transpose(2, 3, 1, 0).reshape(inputs, out)
    return array.T
