"""Making a store. The only module that writes Zarr."""

import errno
import os
import shutil
import time
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from cache.errors import DamagedError, StoreError
from cache.spec import ATTRIBUTE, Columns, Layout, attributes, column_key, shard_key
from cache.store import Block, FeatureStore, metadata_digest_of


class StoreWriter(FeatureStore):
    """An unfinished local store: shards are written whole, in any order, each once.

    Attributes:
        write_seconds: Time spent in `write`.
    """

    def __init__(self, path: Path) -> None:
        """Open what `create_store` made, and clear what a killed writer left."""
        try:
            for leftover in path.rglob("*.partial"):
                leftover.unlink()
        except OSError as error:
            raise StoreError(f"{path}: cannot be written to ({error.strerror or error})") from error
        super().__init__(str(path))
        self.path = path
        self.write_seconds = 0.0
        self._written: dict[str, str] = {}  # file to the sha256 it had once it was read back

    def write(self, shard: int, blocks: Mapping[str, Block]) -> None:
        """Write one shard of every layer, and read it back.

        Args:
            shard: Its number.
            blocks: Layer to (rows of the shard, D).

        Raises:
            StoreError: Values that the store's dtype cannot hold; a full disk or one that cannot
                be written to.
            DamagedError: It does not read back.
        """
        start = time.perf_counter()
        if shard not in self.layout.shards:
            raise ValueError(f"shard {shard}; expected 0 to {self.layout.shards[-1]}")
        lo, hi = self.layout.bounds(shard)
        for layer, width in self.layout.layers.items():
            if blocks[layer].shape != (hi - lo, width):
                raise ValueError(
                    f"{layer}: shard {shard} has shape {hi - lo, width}, got {blocks[layer].shape}"
                )
        group = zarr.open_group(self.path, mode="r+", zarr_format=3)
        for layer in self.layout.layers:
            with np.errstate(over="ignore"):
                block = blocks[layer].astype(self.layout.dtype, copy=False)
            if not np.isfinite(block).all():
                raise StoreError(
                    f"{layer}: rows {lo} to {hi - 1} hold values that {self.layout.dtype} cannot "
                    f"(largest {np.abs(blocks[layer]).max()}); set store.dtype to float32, or "
                    "look at the weights"
                )
            try:
                group[layer].set_basic_selection(slice(lo, hi), block)  # type: ignore[union-attr]
            except OSError as error:
                raise StoreError(
                    f"{self.path}: cannot write {shard_key(layer, shard)} "
                    f"({error.strerror or error}); nothing written so far is lost: make room or "
                    "set FC7CACHE_SCRATCH to another folder, and run again"
                ) from error
            if fault := self.shard_fault(layer, shard):
                raise fault
            self._written[shard_key(layer, shard)] = self.sha256(shard_key(layer, shard))
        self.write_seconds += time.perf_counter() - start

    def finish(self) -> None:
        """Make sure of every row, then mark the store as whole.

        A shard that was here before is read; one of this writer's, which was read back when it
        was written, must have the same bytes still.

        Raises:
            DamagedError: A shard is missing, or does not read back.
        """
        missing = set(self.layout.shards) - set(self.present_shards())
        if missing:
            raise DamagedError(f"{self.path}: not finished, shard {min(missing)} is missing")
        digests = {}
        for layer, shard in product(self.layout.layers, self.layout.shards):
            key = shard_key(layer, shard)
            try:
                digests[key] = self.sha256(key)
            except OSError as error:
                raise DamagedError(f"{self.path}: {key}: {error}", self, shard) from error
            if self._written.get(key, digests[key]) != digests[key]:
                raise DamagedError(f"{self.path}: {key} is not what was written", self, shard)
            if key not in self._written and (fault := self.shard_fault(layer, shard)):
                raise fault
        for name in self.columns:
            self.column(name)
        if "digest" in self.attrs:
            if edited := self.metadata_fault():
                raise DamagedError(f"{self.path}: {edited}", self)
            return
        columns = [column_key(name, self.column(name).ndim) for name in self.columns]
        attrs = self.attrs | {"sha256": digests | {key: self.sha256(key) for key in columns}}
        digest = metadata_digest_of(self.address, attrs)
        _write_attributes(self, attrs | {"digest": digest})


def create_store(
    path: Path, layout: Layout, made_by: Mapping[str, Any], columns: Columns
) -> StoreWriter:
    """Lay out an empty store, columns written, no shard yet; or go on with the one there.

    One that cannot be opened any more is made anew.

    Args:
        path: Local; its parent is created.
        layout: Rows, layers, shards.
        made_by: JSON-ready parts of what makes the features.
        columns: Name to (N,) strings or integers, or (N, B) uint8.

    Raises:
        StoreError: The folder cannot be written to.
    """
    # Under another name first: a store that has its name has all its metadata.
    new = path.with_name(path.name + ".new")
    try:
        if path.exists() and not _opens(path):
            shutil.rmtree(path)
        if not path.exists():
            shutil.rmtree(new, ignore_errors=True)
            new.parent.mkdir(parents=True, exist_ok=True)
            _lay_out(new, layout, made_by, columns)
            new.rename(path)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot create a store here ({error.strerror or error}); make room, or "
            "set FC7CACHE_SCRATCH to a folder that can be written to"
        ) from error
    return StoreWriter(path)


def _opens(path: Path) -> bool:
    try:
        FeatureStore(str(path))
    except StoreError as error:
        cause = error.__cause__
        lost = isinstance(cause, FileNotFoundError)
        if cause is None or (isinstance(cause, OSError) and not lost):
            raise  # another format, or the disk's fault: not ours to delete
        return False
    return True


def publish(store: StoreWriter, target: Path) -> None:
    """Put a finished store in its place, whole or not at all.

    Files are hard-linked where the file system can, else copied.

    Raises:
        StoreError: The store is not finished, or the disk refuses.
    """
    if fault := store.metadata_fault():
        raise StoreError(f"{store.path}: not published: {fault}")
    new, old = (target.with_name(f".{target.name}.{end}") for end in ("new", "old"))
    try:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(store.path, new, copy_function=_link_or_copy)
        if target.exists():
            target.rename(old)
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        # shutil.Error is an OSError too, with one (source, target, why) for every file.
        why = error.args[0][0][2] if isinstance(error, shutil.Error) else error
        raise StoreError(
            f"{target}: cannot publish the store ({why}); the features are kept in "
            f"{store.path}: make room and run again"
        ) from error


def _write_attributes(store: FeatureStore, attrs: dict[str, Any]) -> None:
    try:
        zarr.open_group(store.address, mode="r+", zarr_format=3).attrs[ATTRIBUTE] = attrs
    except OSError as error:
        raise StoreError(
            f"{store.address}: cannot be written to ({error.strerror or error}); nothing written "
            "so far is lost: make room and run again"
        ) from error
    store.attrs = attrs


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        shutil.copyfile(source, target)


def _lay_out(path: Path, layout: Layout, made_by: Mapping[str, Any], columns: Columns) -> None:
    group = zarr.create_group(path, zarr_format=3)
    codecs = [ZstdCodec(level=3), Crc32cCodec()]
    widths = set(layout.layers.values())
    for name, width in layout.layers.items():
        group.create_array(
            name,
            shape=(layout.rows, width),
            shards=(layout.shard_rows, width),
            chunks=(layout.chunk_rows, width),
            dtype=layout.dtype,
            fill_value=np.nan,
            compressors=codecs,
            dimension_names=("image", "feature" if len(widths) == 1 else f"{name}_feature"),
            config={"write_empty_chunks": True},
        )
    for name, values in columns.items():
        text = values.dtype.kind in "OUT"
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=values.shape,
            dtype="str" if text else values.dtype,
            compressors=codecs,
            dimension_names=("image", "byte")[: values.ndim],
            config={"write_empty_chunks": True},
        )
        array[...] = values.astype(object) if text else values
    group.attrs[ATTRIBUTE] = attributes(layout, made_by, columns)


def discard(store: FeatureStore, shard: int) -> None:
    """Remove what is damaged from a local store: one shard's files, or, for -1, the whole store."""
    if shard < 0:
        shutil.rmtree(store.address)
        return
    keys = [shard_key(layer, shard) for layer in store.layout.layers]
    for key in keys:  # before the note on it: killed in between, it is missing, not trusted
        (Path(store.address) / key).unlink(missing_ok=True)
    # No longer finished: a shard written anew may differ in its bits. The others may not.
    kept = {key: value for key, value in store.attrs.items() if key != "digest"}
    if isinstance(noted := kept.get("sha256"), dict):
        kept["sha256"] = {key: value for key, value in noted.items() if key not in keys}
    _write_attributes(store, kept)
