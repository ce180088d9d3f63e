"""Addresses: a folder of this machine, or a place in an object store."""

import sys
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cache.errors import StoreError

# What clients of object stores raise that is no OSError.
_FAULTS = {
    "botocore.exceptions": "BotoCoreError",
    "aiohttp": "ClientError",
    "azure.core.exceptions": "AzureError",
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
        for module, name in _FAULTS.items()
        if module in sys.modules
    )
