"""Where unfinished and reusable stores lie, one folder per fingerprint and runtime."""

import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from cache.errors import StoreError
from cache.plan import Source
from cache.spec import canonical, fingerprint
from cache.store import FeatureStore
from cache.writer import StoreWriter
from stages.places import scratch_root

KEYS = "input_sha256"  # the column that says which content a row's features are of


def scratch_folder(made_by: Mapping[str, Any], runtime: Mapping[str, str]) -> Path:
    """The folder whose stores may be copied from: same fingerprint, same software and device.

    The runtime is not part of a store's identity, since its floats differ by rounding only; but
    one store never mixes rows of two.
    """
    where = hashlib.sha256(canonical(dict(runtime))).hexdigest()
    return scratch_root() / f"{fingerprint(made_by)[:16]}-{where[:8]}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a scratch folder for this process; the lock of a dead one is free.

    Raises:
        StoreError: Another process holds it, or the folder cannot be written to.
    """
    lock = FileLock(folder / "lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise StoreError(
            f"{folder}: another extraction is at work on these features; wait for it to end, or "
            "set FC7CACHE_SCRATCH to another folder"
        ) from error
    except PermissionError as error:
        raise StoreError(
            f"{folder}: cannot be written to; set FC7CACHE_SCRATCH to a folder that can"
        ) from error
    try:
        yield
    finally:
        lock.release()


def reusable_stores(folder: Path, target: StoreWriter) -> list[FeatureStore]:
    """Other stores in the folder whose rows can be copied, the newest first.

    One that cannot be read is no source; its rows are computed again.
    """
    return [
        entry.store
        for entry in entries()
        if entry.store is not None and entry.path.parent == folder and entry.path != target.path
    ]


def unlike_store(folder: Path, made_by: Mapping[str, Any]) -> tuple[FeatureStore, str] | None:
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

    path: Path
    store: FeatureStore | None
    nbytes: int
    age_s: float


def entries() -> list[Entry]:
    """Everything in scratch, the newest first."""
    found = []
    for path in scratch_root().glob("*/*.zarr*"):
        try:
            store = FeatureStore(str(path))
        except StoreError:
            store = None
        newest, nbytes = 0.0, 0
        for file in path.rglob("*"):
            with suppress(FileNotFoundError):  # another process may be at work there
                facts = file.stat()
                newest, nbytes = max(newest, facts.st_mtime), nbytes + facts.st_size
        found.append(Entry(path, store, nbytes, time.time() - newest))
    return sorted(found, key=lambda entry: entry.age_s)


def remove(entry: Entry) -> None:
    """Delete a store in scratch; published stores have links of their own to the files.

    Raises:
        StoreError: An extraction is at work there.
    """
    with locked(entry.path.parent):
        shutil.rmtree(entry.path)


def source_of(store: FeatureStore) -> Source:
    """What a store offers to a plan."""
    rows = [row for shard in store.present_shards() for row in range(*store.layout.bounds(shard))]
    return Source(store.column(KEYS), np.array(rows, np.int64))
