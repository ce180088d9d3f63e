"""A finished store put where it is used: whole, or not at all."""

import errno
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cache.errors import StoreError, UnreachableError
from cache.pointer import write_pointer
from cache.remote import filesystem_of, is_local
from cache.store import FeatureStore, open_store

_AT_ONCE = 16  # requests to an object store


def publish(store: FeatureStore, target: Path) -> None:
    """Put a finished store in its place in the workspace.

    Of a local store files are hard-linked where the file system can, else copied.

    Raises:
        StoreError: The store is not finished, or the disk refuses.
    """
    _check(store)
    filesystem, root = filesystem_of(store.address)

    def make(new: Path) -> None:
        if is_local(store.address):
            unfinished = shutil.ignore_patterns("*.partial")  # of writers that were killed
            shutil.copytree(root, new, copy_function=_link_or_copy, ignore=unfinished)
        else:
            filesystem.get(root, str(new), recursive=True)

    _in_place(target, make, store.address)


def publish_at(store: FeatureStore, address: str, target: Path) -> None:
    """Send a finished store to an address, and put a pointer to it in its place in the workspace.

    The root's metadata, without which there is no store, goes last. A store of the same digest
    that is there already, with files of the same names and sizes, is left alone.

    Args:
        store: Finished.
        address: Where to; not inside the workspace.
        target: Where the pointer goes.

    Raises:
        StoreError: The store is not finished; the address or the disk refuses.
    """
    _check(store)
    if not _is_there(store, address):
        source, root = filesystem_of(store.address)
        goal, there = filesystem_of(address)
        found = source.find(root)
        files = [path[len(root) :] for path in found if not path.endswith(".partial")]
        last = ["/zarr.json"]

        def send(file: str) -> None:
            if source is goal:
                goal.cp_file(root + file, there + file)
            elif is_local(store.address):
                goal.put_file(root + file, there + file)
            else:
                goal.pipe_file(there + file, source.cat_file(root + file))

        try:
            for folder in {file.rpartition("/")[0] for file in files}:
                goal.makedirs(there + folder, exist_ok=True)
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for part in (sorted(set(files) - set(last)), last):
                    list(pool.map(send, part))
        except OSError as error:
            raise StoreError(
                f"{address}: cannot publish the store ({error}); the features are kept in "
                f"{store.address}: run again"
            ) from error
        open_store(address, store.made_by)
    _in_place(target, lambda new: write_pointer(new, address, store.attrs["digest"]), store.address)


def _check(store: FeatureStore) -> None:
    if fault := store.metadata_fault():
        raise StoreError(f"{store.address}: not published: {fault}")


def _is_there(store: FeatureStore, address: str) -> bool:
    try:
        there = open_store(address)
        # A lost or cut file is mended so; whether every bit is right, `verify` tells.
        return there.attrs["digest"] == store.attrs["digest"] and _sizes(there) == _sizes(store)
    except UnreachableError:
        raise
    except StoreError:
        return False


def _sizes(store: FeatureStore) -> dict[str, int]:
    return {name: n for name, n in store.sizes().items() if not name.endswith(".partial")}


def _in_place(target: Path, make: Callable[[Path], None], kept: str) -> None:
    new, old = (target.with_name(f".{target.name}.{end}") for end in ("new", "old"))
    try:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        make(new)
        if target.exists():
            target.rename(old)
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        # shutil.Error is an OSError too, with one (source, target, why) for every file.
        why = error.args[0][0][2] if isinstance(error, shutil.Error) else error
        raise StoreError(
            f"{target}: cannot publish the store ({why}); the features are kept in "
            f"{kept}: make room, or see to the network, and run again"
        ) from error


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        shutil.copyfile(source, target)
