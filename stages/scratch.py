"""Where unfinished and reusable stores lie, one folder per fingerprint and runtime."""

import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from upath import UPath

from cache.errors import StoreError
from cache.plan import Source
from cache.remote import filesystem_of, is_local
from cache.spec import canonical, fingerprint
from cache.store import FeatureStore
from cache.writer import StoreWriter
from stages.places import scratch_root

_OURS = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}/[0-9a-f]{16}\.zarr")
KEYS = "input_sha256"  # the column that says which content a row's features are of


def scratch_folder(made_by: Mapping[str, Any], runtime: Mapping[str, str]) -> UPath:
    """The folder whose stores may be copied from: same fingerprint, same software and device.

    The runtime is not part of a store's identity, since its floats differ by rounding only; but
    one store never mixes rows of two.
    """
    where = hashlib.sha256(canonical(dict(runtime))).hexdigest()
    return scratch_root() / f"{fingerprint(made_by)[:16]}-{where[:8]}"


@contextmanager
def locked(folder: UPath) -> Iterator[None]:
    """Hold a scratch folder for this process; the lock of a dead one is free.

    An object store has no such locks, and needs none: two extractions there may do the same work,
    but what either writes is a whole shard of the same bytes.

    Raises:
        StoreError: Another process holds it, or the folder cannot be written to.
    """
    if not is_local(str(folder)):
        yield
        return
    _, path = filesystem_of(str(folder))
    lock = FileLock(f"{path}/lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise StoreError(
            f"{folder}: another extraction is at work on these features; wait for it to end, or "
            "set FC7CACHE_SCRATCH to another folder"
        ) from error
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise StoreError(
            f"{folder}: cannot be written to; set FC7CACHE_SCRATCH to a folder that can"
        ) from error
    try:
        yield
    finally:
        lock.release()


def reusable_stores(folder: UPath, target: StoreWriter) -> list[FeatureStore]:
    """Other stores in the folder whose rows can be copied, the newest first.

    One that cannot be read is no source; its rows are computed again.
    """
    return [
        entry.store
        for entry in entries()
        if entry.store is not None
        and entry.path.parent == folder
        and str(entry.path) != target.address
    ]


def unlike_store(folder: UPath, made_by: Mapping[str, Any]) -> tuple[FeatureStore, str] | None:
    """The newest store in scratch that cannot be copied from, and the first part that differs."""
    for entry in entries():
        if entry.path.parent != folder and entry.store is not None:
            theirs = entry.store.made_by
            for part in sorted(made_by.keys() | theirs.keys()):
                if theirs.get(part) != made_by.get(part):
                    return entry.store, part
    return None


@dataclass(frozen=True)
class Entry:
    """One store in scratch; ``store`` is None where it cannot be opened."""

    path: UPath
    store: FeatureStore | None
    nbytes: int
    age_s: float


def entries() -> list[Entry]:
    """Everything in scratch, the newest first."""
    found = []
    for path in scratch_root().glob("*/*.zarr"):
        if not _OURS.fullmatch(f"{path.parent.name}/{path.name}"):
            continue  # somebody else's, in a folder that serves for more
        try:
            store = FeatureStore(str(path))
        except StoreError:
            store = None
        filesystem, root = filesystem_of(str(path))
        files = filesystem.find(root, detail=True).values()
        newest = max(map(_modified, files), default=0.0)
        found.append(Entry(path, store, sum(f["size"] for f in files), time.time() - newest))
    return sorted(found, key=lambda entry: entry.age_s)


def _modified(info: Mapping[str, Any]) -> float:
    """When a file was written, seconds since 1970; now, if its file system does not tell."""
    known = (info[name] for name in ("mtime", "LastModified", "last_modified") if name in info)
    stamp = next(known, time.time())
    return stamp.timestamp() if isinstance(stamp, datetime) else float(stamp)


def remove(entry: Entry) -> None:
    """Delete a store in scratch; published stores have links of their own to the files.

    Raises:
        StoreError: An extraction is at work there.
    """
    with locked(entry.path.parent):
        entry.path.fs.rm(entry.path.path, recursive=True)


def source_of(store: FeatureStore) -> Source:
    """What a store offers to a plan."""
    rows = [row for shard in store.present_shards() for row in range(*store.layout.bounds(shard))]
    return Source(store.column(KEYS), np.array(rows, np.int64))
