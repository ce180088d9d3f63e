"""What the network is given of an image: the crop, the size, the contrast."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline.images import Contrast, cropped, resized

Pixels = NDArray[np.uint8]


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def lightness(image: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[..., 0], np.uint8)


def clahe_twin(grey: Pixels, clip: float, tiles: int) -> NDArray[np.float64]:
    """Each tile's clipped histogram to a map of grey levels; each pixel between four of them."""
    side = grey.shape[0] // tiles
    maps = np.empty((tiles, tiles, 256))
    for row in range(tiles):
        for column in range(tiles):
            tile = grey[row * side : (row + 1) * side, column * side : (column + 1) * side]
            counts = np.bincount(tile.ravel(), minlength=256)
            limit = max(int(clip * side * side / 256), 1)
            excess = int(np.maximum(counts - limit, 0).sum())
            counts = np.minimum(counts, limit) + excess // 256
            if rest := excess % 256:
                counts[:: max(256 // rest, 1)][:rest] += 1
            maps[row, column] = np.round(counts.cumsum() * 255 / side**2)
    out = np.empty(grey.shape)
    for y, x in np.ndindex(*grey.shape):
        v, u = y / side - 0.5, x / side - 0.5
        top, left = int(np.floor(v)), int(np.floor(u))
        out[y, x] = sum(
            wy * wx * maps[np.clip(j, 0, tiles - 1), np.clip(i, 0, tiles - 1), grey[y, x]]
            for j, wy in ((top, top + 1 - v), (top + 1, v - top))
            for i, wx in ((left, left + 1 - u), (left + 1, u - left))
        )
    return out


@pytest.mark.parametrize(("clip", "tiles"), [(1.0, 2), (4.0, 4), (40.0, 1)])
def test_equalisation_is_clahe_of_the_lightness(clip: float, tiles: int) -> None:
    y, x = np.mgrid[:64, :64]
    image = np.stack([(y + x) // 2, 20 + x // 3, np.full_like(x, 30)], axis=-1).astype(np.uint8)
    image += noise(64, 64) // 16
    expected = clahe_twin(lightness(image), clip, tiles)
    got = lightness(Contrast(clip, tiles).equalized(image)).astype(float)
    # Back to RGB and again to lightness costs a level or two; colours that RGB lacks, some more.
    assert np.median(abs(got - expected)) <= 1
    assert abs(got - expected).mean() < 2
    assert abs(got - lightness(image)).mean() > 10


def test_a_dark_picture_gains_contrast_and_the_more_the_higher_the_clip() -> None:
    dark = np.asarray(Image.fromarray(noise(9, 9)).resize((64, 64))) // 12
    spread = [lightness(Contrast(clip, 4).equalized(dark)).std() for clip in (1, 2, 4, 40)]
    assert lightness(dark).std() < spread[0] < spread[1] < spread[2] < spread[3]


@given(seed=st.integers(0, 99), clip=st.floats(0.5, 50), tiles=st.integers(1, 9))
def test_equalisation_keeps_shape_and_input_and_is_the_same_again(
    seed: int, clip: float, tiles: int
) -> None:
    image = noise(31, 47, seed)
    kept = image.copy()
    first, second = (Contrast(clip, tiles).equalized(image) for _ in range(2))
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(image, kept)
    np.testing.assert_array_equal(first, second)


def test_the_box_is_cut_out() -> None:
    image = Image.fromarray(noise(40, 30))
    got = cropped(image, (5, 6, 20, 35))
    np.testing.assert_array_equal(got, np.asarray(image.crop((5, 6, 21, 36))))


def resize_twin(image: Pixels, out: int) -> Pixels:
    """Pillow's filter, pixel by pixel: triangular weights in units of 2^-22; rows, then columns."""

    def along(line: NDArray[np.int64]) -> NDArray[np.int64]:
        made = np.empty((out, line.shape[1]), np.int64)
        reach = max(len(line) / out, 1.0)
        for k in range(out):
            middle = (k + 0.5) * len(line) / out
            near = range(
                max(int(middle - reach + 0.5), 0), min(int(middle + reach + 0.5), len(line))
            )
            weights = [max(1 - abs((at - middle + 0.5) / reach), 0) for at in near]
            units = [int(0.5 + (1 << 22) * weight / sum(weights)) for weight in weights]
            total = sum(unit * line[at] for unit, at in zip(units, near, strict=True))
            made[k] = (total + (1 << 21)) >> 22
        return made

    rows = np.stack([along(row) for row in image.astype(np.int64)])
    columns = [along(rows[:, k]) for k in range(out)]
    return np.stack(columns, axis=1).astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (7, 31), (32, 32), (25, 32), (33, 60), (20, 50)])
def test_the_resize_is_what_it_always_was(size: tuple[int, int]) -> None:
    np.testing.assert_array_equal(resized(noise(*size), 32), resize_twin(noise(*size), 32))


def test_contrast_is_that_of_the_resized_crop() -> None:
    crop, contrast = noise(30, 16), Contrast(4, 4)
    np.testing.assert_array_equal(
        resized(crop, 32, contrast), contrast.equalized(resized(crop, 32))
    )
