"""Small pictures of every image in one file, so that pages can show them without the archives."""

import io
import lzma
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from pipeline.errors import InputError

LONGEST_PX = 64
QUALITY = 80

# What zipfile raises for bytes that are not what was written.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, ValueError,
)  # fmt: skip


def thumbnail(image: Image.Image, longest_px: int = LONGEST_PX) -> bytes:
    """A small JPEG of an image; one that is small already keeps its size.

    The same pixels give the same bytes, under one version of Pillow and its libjpeg.

    Args:
        image: RGB.
        longest_px: Longest side at most, pixels.
    """
    small = image.copy()
    small.thumbnail((longest_px, longest_px))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=QUALITY)
    return data.getvalue()


def write_thumbnails(path: Path, pictures: Iterable[tuple[str, bytes]]) -> None:
    """Write a zip archive of ``<image_id>.jpg``; the same pictures give the same bytes.

    Args:
        path: Replaced if it is there.
        pictures: Pairs of image_id and JPEG.
    """
    with zipfile.ZipFile(path, "w") as archive:  # stored: a JPEG does not compress further
        for image_id, jpeg in pictures:
            entry = zipfile.ZipInfo(f"{image_id}.jpg", date_time=(2011, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, on whatever system this runs
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, jpeg)


class Thumbnails:
    """What `write_thumbnails` wrote, opened; safe to read from several threads."""

    def __init__(self, path: Path) -> None:
        """Open for reading.

        Raises:
            InputError: Absent, or not a zip archive.
        """
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise InputError(
                f"{path}: no thumbnails; make them with `dvc repro prepare`, or fetch them with "
                f"`dvc pull {path}`"
            ) from error
        except _UNREADABLE as error:
            raise InputError(
                f"{path}: expected a zip archive of thumbnails, got {error}; "
                "run `dvc repro -f prepare`"
            ) from error

    def __enter__(self) -> "Thumbnails":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def jpeg(self, image_id: str) -> bytes:
        """The picture of an image, as JPEG.

        Raises:
            InputError: No such image, or damaged bytes.
        """
        try:
            return self._zip.read(f"{image_id}.jpg")
        except KeyError as error:
            raise InputError(
                f"{self.path}: no thumbnail of {image_id}; expected one of each image in "
                "data/index.csv; run `dvc repro -f prepare`"
            ) from error
        except _UNREADABLE as error:
            raise InputError(
                f"{self.path}: the thumbnail of {image_id} is damaged ({error}); "
                "run `dvc repro -f prepare`"
            ) from error
