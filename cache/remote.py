"""Addresses: a folder of this machine, or a place in an object store."""

import sys
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cache.errors import StoreError

# What clients of object stores raise that is no OSError.
_FAULTS = {
    "botocore.exceptions": ("BotoCoreError",),
    "aiohttp": ("ClientError",),
    "azure.core.exceptions": ("AzureError",),
    "gcsfs.retry": ("HttpError", "ChecksumError"),
    "google.auth.exceptions": ("GoogleAuthError",),
}


def filesystem_of(address: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path there.

    What it lists is never remembered: zarr and other machines write beside it.

    Raises:
        StoreError: No such kind of address, or the package that speaks to it is not installed.
    """
    try:
        return fsspec.core.url_to_fs(address, use_listings_cache=False)  # type: ignore[no-any-return]
    except (ImportError, ValueError) as error:
        raise StoreError(
            f"{address}: {error}; expected a path or an fsspec address; for s3://, gs:// or az:// "
            "install fc7cache[s3], fc7cache[gs] or fc7cache[azure]"
        ) from error


def is_local(address: str) -> bool:
    """Whether an address is a path of this machine."""
    return isinstance(filesystem_of(address)[0], LocalFileSystem)


def transport_faults() -> tuple[type[Exception], ...]:
    """What the clients in use raise, beside OSError, when a store does not answer."""
    return tuple(
        getattr(sys.modules[module], name)
        for module, names in _FAULTS.items()
        if module in sys.modules
        for name in names
    )


def unanswered(address: str, key: str, error: Exception) -> Exception | None:
    """Why a store does not answer; None where it does, so that the bytes themselves are at fault.

    Clients of object stores raise errors of many kinds when a request fails, so only of what can
    be fetched whole, or is not there, the latter is believed.

    Args:
        address: Of the store.
        key: The file in it that was read.
        error: What came of that.
    """
    filesystem, root = filesystem_of(address)
    if isinstance(filesystem, LocalFileSystem) or isinstance(error, FileNotFoundError):
        return None
    if isinstance(error, OSError):
        return error
    try:
        filesystem.cat_file(f"{root}/{key}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RuntimeError) as cause:
        return cause
    return None
