"""Where unfinished and reusable stores lie, one folder per fingerprint and runtime."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from cache.errors import StoreError
from cache.plan import Source
from cache.spec import canonical, fingerprint
from cache.store import FeatureStore
from cache.writer import StoreWriter

KEYS = "input_sha256"  # the column that says which content a row's features are of


def scratch_root() -> Path:
    """FC7CACHE_SCRATCH, or ``scratch`` in the project.

    Outside the project it survives ``dvc exp run --temp`` and serves several clones.
    """
    return Path(os.environ.get("FC7CACHE_SCRATCH", "scratch"))


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout as error:
        raise StoreError(
            f"{folder}: another extraction is at work on these features; wait for it to end, or "
            "set FC7CACHE_SCRATCH to another folder"
        ) from error
    except PermissionError as error:
        raise StoreError(
            f"{folder}: cannot be written to; set FC7CACHE_SCRATCH to a folder that can"
        ) from error


def reusable_stores(folder: Path, target: StoreWriter) -> list[FeatureStore]:
    """Other stores in the folder whose rows can be copied, the newest first.

    One that cannot be read is no source; its rows are computed again.
    """
    paths = [path for path in folder.glob("*.zarr") if path != target.path]
    stores = []
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            stores.append(FeatureStore(str(path)))
        except StoreError:
            continue
    return stores


def source_of(store: FeatureStore) -> Source:
    """What a store offers to a plan."""
    rows = [row for shard in store.present_shards() for row in range(*store.layout.bounds(shard))]
    return Source(store.column(KEYS), np.array(rows, np.int64))
