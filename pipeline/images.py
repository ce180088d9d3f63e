"""Image bytes to the pixels that AlexNet is given. H, W: pixels."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import InputError

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 of the first and last pixel, both inside


def decode(data: bytes, name: str) -> Image.Image:
    """Decode a whole image file to RGB.

    Args:
        data: The file's bytes, in any format that Pillow reads.
        name: What to call it in an error.

    Raises:
        InputError: Not an image, cut short, or too large to be a photo.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: expected an image that Pillow can read, got {error}") from error
    except Image.DecompressionBombWarning as error:
        raise InputError(f"{name}: expected a photo, got {error}") from error


def pixels(image: Image.Image, input_px: int, box: Box | None = None) -> NDArray[np.uint8]:
    """Crop to the box, if there is one, and resize.

    The resize is Pillow's bilinear filter to a square, whatever the aspect ratio: what the
    network sees of a 30 x 40 crop is stretched, but nothing of the sign is cut off.

    Returns:
        (input_px, input_px, 3) uint8, RGB.
    """
    if box is not None:
        x1, y1, x2, y2 = box
        image = image.crop((x1, y1, x2 + 1, y2 + 1))
    return np.asarray(image.resize((input_px, input_px), Image.Resampling.BILINEAR))
