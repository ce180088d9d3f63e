"""Files from an address, fetched once and checked by hash; files here, where they lie."""

import re
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import url2pathname

import fsspec
import pooch
import requests
from fsspec.callbacks import TqdmCallback

from pipeline.errors import InputError

_TIMEOUT_S = 60


def local_path(location: str) -> Path | None:
    """The path that a path or a file:// address names; None for an address elsewhere."""
    if re.match(r"[a-z][a-z0-9+.-]+://", location, re.IGNORECASE) is None:
        return Path(location)
    parts = urlsplit(location)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def anywhere(location: str) -> str:
    """The same place, named so that it does not depend on the folder one is in."""
    path = local_path(location)
    return location if path is None else str(path.resolve())


def file_name(address: str) -> str:
    """The name of the file at an address: the end of its path, without a query behind it."""
    return PurePosixPath(urlsplit(address).path).name


def fetch(address: str, known_hash: str, folder: Path, advice: str) -> Path:
    """Make sure that a file is in a folder, and right; download it only if it is not.

    It has its `file_name` there. A download goes to a temporary name and is renamed once its
    checksum is right, so one that was interrupted is never taken for whole.

    Args:
        address: http(s)://, or of an object store: s3://, gs://, az:// … .
        known_hash: As ``md5:…`` or ``sha256:…``.
        folder: Where to; created if need be.
        advice: What else a person can do if it cannot be had.

    Raises:
        InputError: No answer from the address, or another hash.
    """
    name = file_name(address)
    http = urlsplit(address).scheme in ("http", "https")
    usual = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=_TIMEOUT_S)
    try:
        pooch.retrieve(
            address,
            known_hash=known_hash,
            fname=name,
            path=folder,
            downloader=usual if http else _get,
        )
    except (requests.RequestException, OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"cannot fetch {address} (expected {known_hash.replace(':', ' ')}): {reason}. Put the "
            f"file at {folder / name} yourself and run again, or {advice}"
        ) from error
    return folder / name


def _get(address: str, output: str, _: pooch.Pooch) -> None:
    filesystem, path = fsspec.core.url_to_fs(address)
    callback = TqdmCallback(tqdm_kwargs={"disable": None, "unit": "B", "unit_scale": True})
    try:
        filesystem.get_file(path, output, callback=callback)
    except Exception as error:  # each store's client has errors of its own kinds
        raise OSError(str(error) or repr(error)) from error
