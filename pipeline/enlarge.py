"""Pillow's bilinear enlargement, for many images at once, on the device, to the bit.

A photo of a sign is a few kilobytes, what the network sees of it is 150: so an accelerator is
sent the photos as they are. Pillow's filter works in integers: an output pixel is the sum of two
neighbours, weighed in units of 2^-22, rounded to 8 bits, first along the rows and then along the
columns. Integers add up alike everywhere, so where the images are enlarged changes no feature.

N images, P pixels of a side of the output, L bytes.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import backend

_BITS = 22
_MIN_BYTES = 1 << 16

Packed = tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]


@cache
def filter_taps(size_px: int, out_px: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Which pixels of a row make up each output pixel, and their weights.

    Args:
        size_px: Length of the row; at most ``out_px``.
        out_px: P.

    Returns:
        Numbers of the pixels (P, 2), the last pixel's repeated behind it; weights (P, 2), in
        units of 2^-22.
    """
    middle = (np.arange(out_px) + 0.5) * (size_px / out_px)
    first = np.maximum((middle - 0.5).astype(np.int32), 0)
    at = first[:, None] + np.arange(2)
    weight = np.maximum(1 - np.abs(at - middle[:, None] + 0.5), 0) * (at < size_px)
    weight /= weight.sum(axis=1, keepdims=True)
    whole = np.floor(0.5 + weight * (1 << _BITS))
    return np.minimum(at, size_px - 1).astype(np.int32), whole.astype(np.int32)


def packed(images: Sequence[NDArray[np.uint8]]) -> Packed:
    """Images of any sizes, (h, w, 3), as one row of bytes.

    Its length is rounded up to a power of two, so that `enlarged` is compiled for few lengths.

    Returns:
        Bytes (L,); where each image starts, its height, its width (N,).
    """
    ends = np.cumsum([image.size for image in images])
    data = np.zeros(max(_MIN_BYTES, 1 << int(ends[-1] - 1).bit_length()), np.uint8)
    np.concatenate([image.ravel() for image in images], out=data[: ends[-1]])
    sizes = np.array([image.shape[:2] for image in images], np.int32)
    starts = np.append(0, ends[:-1]).astype(np.int32)
    return data, starts, sizes[:, 0], sizes[:, 1]


def enlarged(data: Any, start: Any, height: Any, width: Any, out_px: int) -> Any:
    """What `packed` gave, as tensors, to (N, P, P, 3) uint8; no side may be larger than P."""
    ops = backend.keras().ops
    tables = [filter_taps(size, out_px) for size in range(1, out_px + 1)]
    number, weight = (np.stack(part) for part in zip(*tables, strict=True))
    y, wy = (ops.take(table, height - 1, axis=0) for table in (number, weight))
    x, wx = (ops.take(table, width - 1, axis=0) for table in (number, weight))

    def rounded(weighed: Any) -> Any:
        return ops.floor_divide(weighed + (1 << (_BITS - 1)), 1 << _BITS)

    def along_rows(tap: int) -> Any:
        rows = start[:, None] + y[:, :, tap] * (3 * width[:, None])
        at = [
            rows[:, :, None, None] + (3 * x[:, None, :, each, None] + np.arange(3, dtype=np.int32))
            for each in (0, 1)
        ]
        values = [ops.cast(ops.take(data, place, axis=0), "int32") for place in at]
        return rounded(sum(v * wx[:, None, :, k, None] for k, v in enumerate(values)))

    columns = [along_rows(tap) * wy[:, :, tap, None, None] for tap in (0, 1)]
    return ops.cast(rounded(columns[0] + columns[1]), "uint8")
