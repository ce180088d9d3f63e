"""The three official GTSRB archives: found or fetched, checked, and read without unpacking."""

import lzma
import zipfile
import zlib
from pathlib import Path

import pooch

from pipeline.errors import InputError
from pipeline.fetch import fetch, local_path

NAMES = {
    "train": "GTSRB_Final_Training_Images.zip",
    "test": "GTSRB_Final_Test_Images.zip",
    "test_labels": "GTSRB_Final_Test_GT.zip",
}
MOST_BYTES = 1 << 28  # of a member: a photo as large as Pillow takes it for one
DOWNLOADS = Path("data/archives")  # not a DVC output: DVC would delete it before each run


def archive_path(source: str, part: str) -> Path:
    """Where an archive lies: in the source itself if that is a directory, else where downloads go.

    Args:
        source: Base address, file:// address or directory.
        part: "train", "test" or "test_labels".
    """
    return (local_path(source) or DOWNLOADS) / NAMES[part]


def fetch_archive(source: str, part: str, md5: str) -> Path:
    """Make sure that an archive is there and right; download it only if it is not.

    Raises:
        InputError: Missing locally, another checksum, or no answer from the address.
    """
    path = archive_path(source, part)
    if local_path(source) is not None:
        if not path.is_file():
            raise InputError(
                f"{path}: no such archive; expected {NAMES[part]} with md5 {md5} in the directory "
                "that prepare.source names. To try without the data: make demo"
            )
        got = pooch.file_hash(str(path), alg="md5")
        if got != md5:
            raise InputError(
                f"{path}: expected md5 {md5}, got {got}; replace the file, or, if this is the "
                f"data you want, set prepare.md5.{part} to {got}"
            )
        return path
    address = f"{source.rstrip('/')}/{NAMES[part]}"
    advice = "set prepare.source to a directory that has it. To try without the data: make demo"
    return fetch(address, f"md5:{md5}", DOWNLOADS, advice)


class Archive:
    """A zip archive whose members are read by name; safe to read from several threads."""

    def __init__(self, path: Path) -> None:
        """Open for reading.

        Raises:
            InputError: Not a zip archive, or not there.
        """
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, RuntimeError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path}: expected a zip archive, got {error}; run `dvc repro prepare`"
            ) from error
        self.members = self._zip.namelist()

    def read(self, member: str) -> bytes:
        """The bytes of a member.

        Raises:
            InputError: Absent, damaged, cut short, or absurdly large.
        """
        try:
            # What a member says of its size can be wrong, but no more than that is unpacked.
            if (size := self._zip.getinfo(member).file_size) > MOST_BYTES:
                raise InputError(
                    f"{self.path}: {member} unpacks to {size:,} bytes; expected an image or a "
                    f"table of at most {MOST_BYTES:,}"
                )
            return self._zip.read(member)
        except KeyError as error:
            raise InputError(
                f"{self.path}: {member} is listed but not in the archive; fetch the archive anew"
            ) from error
        except (
            zipfile.BadZipFile,
            zlib.error,
            lzma.LZMAError,
            OSError,
            EOFError,
            RuntimeError,
        ) as error:
            raise InputError(
                f"{self.path}: {member} is damaged ({error}); fetch the archive anew"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
