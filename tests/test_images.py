"""What the network is given of an image: the crop, the size, the contrast."""

import contextlib
import io
import os
import random
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import InputError
from pipeline.images import Contrast, cropped, decode, named_as_image, resized

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


def saved(image: Image.Image, format_: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


# What is stored, to what a person is to see: the tag's eight values (EXIF 2.3, section 4.6.4).
UPRIGHT = [
    lambda stored: stored,
    lambda stored: stored[:, ::-1],
    lambda stored: stored[::-1, ::-1],
    lambda stored: stored[::-1],
    lambda stored: stored.transpose(1, 0, 2),
    lambda stored: np.rot90(stored, -1),
    lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    lambda stored: np.rot90(stored),
]


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_the_camera_says(format_: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(noise(6, 9))
    plain = decode(saved(image, format_), "x")
    turned = decode(saved(image, format_, exif=exif), "x")
    expected = UPRIGHT[orientation - 1](np.asarray(plain))
    assert turned.size == (expected.shape[1], expected.shape[0])
    np.testing.assert_array_equal(turned, expected)


def encoded(suffix: str, channels: int, dtype: type = np.uint16) -> bytes:
    pixels = np.full((2, 3, channels), 40_000 if dtype is np.uint16 else 200, dtype)
    done, data = cv2.imencode(suffix, pixels)
    assert done
    return data.tobytes()


def png(colour: int, bits: int, row: bytes) -> bytes:
    """One row of two pixels; colour types as the format numbers them."""
    chunks = (b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, colour, 0, 0, 0)), (
        b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def tiff(bits: int, planes: int, order: str = "<") -> bytes:
    """Two pixels of three channels, uncompressed, in one plane or in three."""
    strip, start = 6 * bits // 8 // planes, 8 + 2 + 12 * 10 + 4  # what follows the ten tags
    tags = {
        256: [2], 257: [1], 258: [bits] * 3, 259: [1], 262: [2],
        273: [start + k * strip for k in range(planes)], 277: [3], 278: [1], 279: [strip] * planes,
        284: [1 if planes == 1 else 2],
    }  # fmt: skip
    entries, behind = b"", bytes(range(strip * planes))
    for tag, values in tags.items():
        value = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            value, behind = struct.pack(f"{order}I", start + len(behind)), behind + value
        entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + value
    head = struct.pack(f"{order}HIH", 42, 8, len(tags))
    return (b"II" if order == "<" else b"MM") + head + entries + bytes(4) + behind


DEEP = {
    **{
        f"{mode} {format_}": saved(Image.new(mode, (3, 2), 40_000), format_)
        for mode, format_ in (
            ("I;16", "PNG"), ("I;16", "TIFF"), ("I", "TIFF"), ("F", "TIFF"), ("I;16", "PPM"),
        )
    },
    "RGB PNG": encoded(".png", 3),
    "RGBA PNG": encoded(".png", 4),
    "LA PNG": png(4, 16, bytes(8)),
    "L PNG": png(0, 16, bytes(4)),
    "RGB TIFF, packed": encoded(".tiff", 3),
    "RGBA TIFF, packed": encoded(".tiff", 4),
    "RGB TIFF": tiff(16, 1),
    "RGB TIFF, big-endian": tiff(16, 1, ">"),
    "RGB TIFF, in planes": tiff(16, 3),
    "P6 of 65535": encoded(".ppm", 3),
    "P6 of 1023": b"P6 2 1 1023\n" + bytes(12),
    "P3 of 1023": b"P3 2 1 1023\n1023 0 0 0 0 9\n",
    "P5 of 1023": b"P5 2 1 1023\n" + bytes(4),
}  # fmt: skip
FLAT = {
    **{
        f"{mode} {format_}": saved(Image.new(mode, (3, 2)), format_)
        for format_, modes in {
            "PNG": "1 L LA P RGB RGBA", "TIFF": "1 L LA P RGB RGBA CMYK", "JPEG": "L RGB CMYK",
            "PPM": "1 L RGB", "BMP": "1 L P RGB", "GIF": "L P", "WEBP": "RGB RGBA",
        }.items()
        for mode in modes.split()
    },
    "LA PNG by hand": png(4, 8, bytes(4)),
    "two bits PNG": png(0, 2, b"\x1b"),
    "packed TIFF": encoded(".tiff", 3, np.uint8),
    "TIFF by hand": tiff(8, 1),
    "TIFF in planes": tiff(8, 3),
    "P6 of 255": b"P6 2 1 255\n" + bytes(6),
    "P6 of 100": b"P6 2 1 100\n" + bytes(6),
    "P3 of 100": b"P3 2 1 100\n100 0 0 0 0 9\n",
    # 5, 6 and 5 bits a pixel.
    "BMP of 16 bits": b"BM" + struct.pack("<IHHI", 74, 0, 0, 66)
    + struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0)
    + struct.pack("<III", 0xF800, 0x7E0, 0x1F) + bytes(8),
}  # fmt: skip


@pytest.mark.parametrize("name", DEEP)
def test_more_than_8_bits_a_channel_are_refused(name: str) -> None:
    expected = r"^x: expected 8 bits a channel, got more \((I|F|I;16B?|RGBA?) pixels\); convert it"
    with pytest.raises(InputError, match=expected):
        decode(DEEP[name], "x")


@pytest.mark.parametrize("name", FLAT)
def test_8_bits_a_channel_or_fewer_are_read(name: str) -> None:
    whole = Image.open(io.BytesIO(FLAT[name])).convert("RGB")
    np.testing.assert_array_equal(decode(FLAT[name], "x"), whole)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of tags that are none
def test_damaged_tags_are_told_or_passed_over() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x011A] = 6, "x" * 20, 1.5
    chance = random.Random(0)
    for format_ in ("JPEG", "WEBP"):
        whole = saved(Image.fromarray(noise(8, 12)), format_, exif=exif)
        start = max(whole.find(b"II*\0"), whole.find(b"MM\0*"))
        told = 0
        for _ in range(300):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 6)):
                data[start + chance.randrange(80)] = chance.randrange(256)
            try:
                assert decode(bytes(data), "x").mode == "RGB"
            except InputError:
                told += 1
        assert told < 300


def tagged(*entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF, little-endian: tag, kind, count and four bytes of value of each entry."""
    body = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4)


@pytest.mark.parametrize("format_", ["JPEG", "WEBP", "PNG"])
def test_a_tag_of_text_that_is_a_number_spoils_no_photo(format_: str) -> None:
    # ImageDescription as a rational (kind 5), of the eight bytes at the start.
    exif = tagged((0x010E, 5, 1, bytes(4)), (0x0112, 3, 1, struct.pack("<HH", 6, 0)))
    image = Image.fromarray(noise(6, 9))
    turned = decode(saved(image, format_, exif=exif), "x")
    plain = np.asarray(decode(saved(image, format_), "x"))
    np.testing.assert_array_equal(turned, UPRIGHT[5](plain))


def test_a_tiff_whose_pixels_lie_nowhere_is_told() -> None:
    data = bytearray(saved(Image.fromarray(noise(6, 9)), "TIFF"))
    # The strip's offset (tag 273) becomes a number of eight bytes, which lies at the file's end.
    place = data.index(struct.pack("<HHI", 273, 4, 1))
    data[place : place + 12] = struct.pack("<HHII", 273, 16, 1, len(data))
    with pytest.raises(InputError, match=r"^x: expected an image \(PNG, .*got .*int"):
        decode(bytes(data) + b"\xff" * 8, "x")


@pytest.mark.parametrize("action", ["error", "ignore"])
def test_bombs_are_refused_in_every_thread(monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    good, large, larger = (
        saved(Image.new("L", size), "PPM") for size in [(9, 9), (9, 12), (9, 99)]
    )

    def look(number: int) -> bool:
        if number % 3:
            with pytest.raises(InputError, match=r"^x: expected .* decompression bomb"):
                decode(large if number % 3 == 1 else larger, "x")
            return True
        return decode(good, "x").size == (9, 9)

    usual = sys.getswitchinterval()
    with warnings.catch_warnings(), ThreadPoolExecutor(16) as pool:
        warnings.simplefilter(action, Image.DecompressionBombWarning)  # type: ignore[arg-type]
        try:
            sys.setswitchinterval(1e-6)  # so that threads get in each other's way
            assert all(pool.map(look, range(3000)))
        finally:
            sys.setswitchinterval(usual)


def test_a_large_image_gives_one_line_and_no_warning_beside_it() -> None:
    code = (
        "from pipeline.images import decode\n"
        "try: decode(b'P6 11000 11000 255\\n', 'x')\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == (
        "x: expected a photo of at most 89,478,485 pixels, got 11000 x 11000, which could be a "
        "decompression bomb\n"
    )
    assert done.stderr == ""


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"


def test_no_image_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gs", "gswin32c", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(InputError, match=r"^x\.png: expected an image \(PNG, .*cannot identify"):
        decode(EPS, "x.png")
    assert not (tmp_path / "ran").exists()
    # Pillow itself would have: so the program above is found.
    with contextlib.suppress(OSError):
        Image.open(io.BytesIO(EPS)).convert("RGB")
    assert (tmp_path / "ran").exists()


def test_names_of_images() -> None:
    images = ["a.png", "b.JPG", "c.jpeg", "d.tif", "e.tiff", "f.webp", "g.ppm", "h.bmp", "i.gif"]
    others = ["a.eps", "b.pdf", "c.ps", "d.fits", "e.txt", "png", ".png", "f.png.zip", ""]
    assert [name for name in images + others if named_as_image(name)] == images
