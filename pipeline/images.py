"""Image bytes to the pixels that AlexNet is given. H, W: pixels."""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from pipeline.errors import InputError
from pipeline.views import Box

# What is read. Of the many formats that Pillow knows, some start programs: EPS does Ghostscript.
FORMATS = ("PNG", "JPEG", "PPM", "BMP", "GIF", "TIFF", "WEBP")
# What Pillow raises for bytes that are not what was written; from struct.error on, for tags.
_UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError,
    Image.DecompressionBombWarning, struct.error, TypeError, AttributeError, OverflowError,
)  # fmt: skip
# Once and for all: `decode` runs in threads, and a filter cannot be set for one of them. Where
# something else has made the warning an error, it is caught as one.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
_BITS = ExifTags.Base.BitsPerSample
# EXIF's orientation to what turns the picture upright. Pillow's own exif_transpose also writes
# the tags anew, which fails for one whose kind is not what it should be.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Contrast:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994).

    Attributes:
        clip: No grey level may take up more than this, in multiples of an even share: the higher,
            the more contrast.
        tiles: The picture has tiles x tiles histograms; between their middles is interpolated.
    """

    clip: float
    tiles: int

    def equalized(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB to the same, its lightness (L of CIELAB) spread, its hues kept."""
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        clahe = cv2.createCLAHE(self.clip, (self.tiles, self.tiles))
        lab[..., 0] = clahe.apply(np.ascontiguousarray(lab[..., 0]))
        return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)


def named_as_image(name: str) -> bool:
    """Whether a file's name ends as that of an image in one of `FORMATS`."""
    return Image.registered_extensions().get(PurePath(name).suffix.lower()) in FORMATS


def decode(data: bytes, name: str) -> Image.Image:
    """Decode a whole image file to RGB, upright: turned as its EXIF orientation says.

    Args:
        data: The file's bytes, in one of `FORMATS`.
        name: What to call it in an error.

    Raises:
        InputError: Not an image, cut short, of more than 8 bits a channel, or too large to be a
            photo.
    """
    with _told(name):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        deep = _is_deep(image)
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and image.width * image.height > most:
        raise InputError(
            f"{name}: expected a photo of at most {most:,} pixels, got {image.width} x "
            f"{image.height}, which could be a decompression bomb"
        )
    if deep:  # which Pillow would make white, or cut to the upper 8 bits
        raise InputError(
            f"{name}: expected 8 bits a channel, got more ({image.mode} pixels); convert it first"
        )
    with _told(name):
        rgb = image.convert("RGB")
        # Only now: a PNG may have its tags behind the pixels, and Pillow turns a TIFF itself.
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return rgb if turn is None else rgb.transpose(turn)


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether a channel has more than 8 bits, in an image that is opened and not yet loaded."""
    # A TIFF says so itself; of each plane by itself its raw mode does not.
    if image.mode[0] in "IF" or max(getattr(image, "tag_v2", {}).get(_BITS, (8,))) > 8:
        return True
    for decoder, _, _, args in image.tile:
        match decoder, args:
            case (("ppm" | "ppm_plain"), (str(), int(largest))):
                return largest > 255
            # "RGB;16B" has 16 bits a channel, "BGR;16" in all.
            case _, (str(raw) | (str(raw), *_)) if raw.endswith((";16B", ";16L", ";16N")):
                return True
    return False


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Whatever Pillow raises, told in one line."""
    try:
        yield
    except _UNREADABLE as error:
        raise InputError(
            f"{name}: expected an image ({', '.join(FORMATS)}), got {error}"
        ) from error


def cropped(image: Image.Image, box: Box) -> NDArray[np.uint8]:
    """The box of an image, (h, w, 3) uint8; what of it lies outside repeats the image's edge."""
    x1, y1, x2, y2 = box
    if 0 <= x1 <= x2 < image.width and 0 <= y1 <= y2 < image.height:
        return np.asarray(image)[y1 : y2 + 1, x1 : x2 + 1]
    rows = np.clip(np.arange(y1, y2 + 1), 0, image.height - 1)
    columns = np.clip(np.arange(x1, x2 + 1), 0, image.width - 1)
    return np.asarray(image)[np.ix_(rows, columns)]


def resized(
    crop: NDArray[np.uint8], input_px: int, contrast: Contrast | None = None
) -> NDArray[np.uint8]:
    """A crop as the network takes it: resized; then equalised, if asked for.

    The resize is Pillow's bilinear filter to a square, whatever the aspect ratio: what the
    network sees of a 30 x 40 crop is stretched, but nothing of the sign is cut off.

    Returns:
        (input_px, input_px, 3) uint8, RGB.
    """
    size = (input_px, input_px)
    out = np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.BILINEAR))
    return contrast.equalized(out) if contrast else out
