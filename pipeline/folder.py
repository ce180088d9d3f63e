"""A folder of a person's own images, read as an archive is: by name, and nothing outside of it."""

import stat
from pathlib import Path

from pipeline.archives import MOST_BYTES, NAMES, Archive
from pipeline.errors import InputError
from pipeline.fetch import local_path


class Folder:
    """A folder whose files are read by their path below it; safe to read from several threads."""

    def __init__(self, path: Path) -> None:
        """Note where it is.

        Raises:
            InputError: No folder, or not there.
        """
        self.path = path
        if not path.is_dir():
            raise InputError(f"{path}: expected a folder of images, got none; see prepare.source")
        self._root = path.resolve()

    def find(self, member: str) -> Path:
        """Where a file is, which could be read; it is not opened.

        Raises:
            InputError: Absent, not a file, absurdly large, or outside of the folder: by its name,
                or by a link.
        """
        where = f"{self.path}: {member!r}"
        named = Path(member)
        if named.anchor or ".." in named.parts:
            raise InputError(f"{where}: expected a path below this folder, got one that leaves it")
        try:
            file = (self._root / named).resolve(strict=True)
            found = file.stat()
        except FileNotFoundError as error:
            raise InputError(
                f"{where} is listed but not there; correct the listing, or bring the file back"
            ) from error
        except (OSError, RuntimeError, ValueError) as error:  # links in a circle; a null byte
            raise InputError(f"{where} cannot be read ({error})") from error
        if not file.is_relative_to(self._root):
            raise InputError(
                f"{where} is a link to {file}, outside of this folder; copy the file into it, "
                "or name a folder that holds both"
            )
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
            raise InputError(f"{where} is no file; expected an image")
        if found.st_size > MOST_BYTES:
            raise InputError(
                f"{where} has {found.st_size:,} bytes; expected an image of at most {MOST_BYTES:,}"
            )
        return file

    def read(self, member: str) -> bytes:
        """The bytes of a file.

        Raises:
            InputError: See `find`; no permission, or a disk that fails.
        """
        file = self.find(member)
        try:
            return file.read_bytes()
        except OSError as error:
            raise InputError(f"{self.path}: {member!r} cannot be read ({error})") from error


def opened(path: Path) -> Archive | Folder:
    """Open a folder or an archive.

    Raises:
        InputError: Neither.
    """
    return Folder(path) if path.is_dir() else Archive(path)


def own_root(source: str) -> Path | None:
    """The folder that holds a person's own images; None where the official archives are meant.

    Args:
        source: ``prepare.source``: a CSV file's folder is meant, or a folder that holds folders
            and none of the archives, or else the archives.

    Raises:
        InputError: A path at which there is none of them, or that cannot be read.
    """
    path = local_path(source)
    is_csv = source.lower().endswith(".csv")
    if path is None and not is_csv:
        return None
    try:
        if path is not None and is_csv and path.is_file():
            return path.parent
        if path is not None and path.is_dir():
            if any((path / name).is_file() for name in NAMES.values()):
                return None
            if any(entry.is_dir() for entry in path.iterdir()):
                return path
    except OSError as error:
        raise InputError(f"prepare.source: {source} cannot be read ({error})") from error
    raise InputError(
        f"prepare.source: nothing to read at {source}; expected a local .csv file (path,label and, "
        f"if known, group,split), a folder with a folder of images per class, or a folder or "
        f"address of the official archives ({', '.join(NAMES.values())}). To try without any "
        "data: make demo"
    )
