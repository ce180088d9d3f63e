"""Making a store. The only module that writes Zarr."""

import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from cache.errors import DamagedError, StoreError, UnreachableError
from cache.remote import filesystem_of, is_local
from cache.spec import ATTRIBUTE, Columns, Layout, attributes, column_key, shard_key
from cache.store import Block, FeatureStore, metadata_digest_of


class StoreWriter(FeatureStore):
    """An unfinished store: shards are written whole, in any order, by anyone who has opened it.

    Attributes:
        write_seconds: Time spent in `write`.
    """

    def __init__(self, address: str | Path) -> None:
        """Open what `create_store` made."""
        super().__init__(address)
        self.write_seconds = 0.0

    def write(self, shard: int, blocks: Mapping[str, Block]) -> dict[str, str]:
        """Write one shard of every layer, and read it back.

        Args:
            shard: Its number.
            blocks: Layer to (rows of the shard, D).

        Returns:
            Its files, and the sha256 of each, for `finish`.

        Raises:
            StoreError: Values that the store's dtype cannot hold; a full disk or one that cannot
                be written to; an object store that does not answer.
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
        group = zarr.open_group(self.address, mode="r+", zarr_format=3)
        digests = {}
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
                    f"{self.address}: cannot write {shard_key(layer, shard)} "
                    f"({error.strerror or error}); nothing written so far is lost: make room or "
                    "set FC7CACHE_SCRATCH to another folder, and run again"
                ) from error
            if fault := self.shard_fault(layer, shard):
                raise fault
            digests[shard_key(layer, shard)] = self.sha256(shard_key(layer, shard))
        self.write_seconds += time.perf_counter() - start
        return digests

    def finish(self, written: Mapping[str, str] | None = None) -> None:
        """Make sure of every row, then mark the store as whole.

        Args:
            written: What `write` gave. Such a file was read back already and must have the same
                bytes still; any other is read now.

        Raises:
            DamagedError: A shard is missing, or does not read back.
        """
        written = written or {}
        missing = set(self.layout.shards) - set(self.present_shards())
        if missing:
            raise DamagedError(f"{self.address}: not finished, shard {min(missing)} is missing")
        digests = {}
        for layer, shard in product(self.layout.layers, self.layout.shards):
            key = shard_key(layer, shard)
            try:
                digests[key] = self.sha256(key)
            except OSError as error:
                raise self.fault(error, f"{self.address}: {key}: {error}", key, shard) from error
            if written.get(key, digests[key]) != digests[key]:
                message = f"{self.address}: {key} is not what was written"
                raise DamagedError(message, self.address, shard)
            if key not in written and (fault := self.shard_fault(layer, shard)):
                raise fault
        for name in self.columns:
            self.column(name)
        if "digest" in self.attrs:
            if edited := self.metadata_fault():
                raise DamagedError(f"{self.address}: {edited}", self.address)
            return
        columns = [column_key(name, self.column(name).ndim) for name in self.columns]
        attrs = self.attrs | {"sha256": digests | {key: self.sha256(key) for key in columns}}
        digest = metadata_digest_of(self.address, attrs)
        _write_attributes(self, attrs | {"digest": digest})


def create_store(
    address: str | Path, layout: Layout, made_by: Mapping[str, Any], columns: Columns
) -> StoreWriter:
    """Lay out an empty store, columns written, no shard yet; or go on with the one there.

    One that cannot be opened any more is made anew. In a local one, which nobody else may be
    writing, what a killed writer left is cleared first. In an object store two may do this at the
    same time: both write the same.

    Args:
        address: A local path or an fsspec address.
        layout: Rows, layers, shards.
        made_by: JSON-ready parts of what makes the features.
        columns: Name to (N,) strings or integers, or (N, B) uint8.

    Raises:
        StoreError: It cannot be written to.
    """
    address = str(address)
    filesystem, root = filesystem_of(address)
    try:
        if is_local(address):
            if not _opens(address):
                shutil.rmtree(root, ignore_errors=True)
                _lay_out(address, layout, made_by, columns)
            for leftover in Path(root).rglob("*.partial"):
                leftover.unlink(missing_ok=True)
        elif not _opens(address):
            files: dict[str, Any] = {}
            _lay_out(MemoryStore(files), layout, made_by, columns)
            for key in sorted(files, key=lambda key: key == "zarr.json"):  # the root's last
                filesystem.pipe_file(f"{root}/{key}", files[key].to_bytes())
    except OSError as error:
        raise StoreError(
            f"{address}: cannot create a store here ({error.strerror or error}); make room, or "
            "set FC7CACHE_SCRATCH to a folder that can be written to"
        ) from error
    return StoreWriter(address)


def _opens(address: str) -> bool:
    try:
        FeatureStore(address)
    except UnreachableError:
        raise
    except StoreError as error:
        cause = error.__cause__
        if cause is None:
            raise  # of another format: not ours to delete
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            raise cause from error  # the disk's fault
        return False
    return True


def _write_attributes(store: FeatureStore, attrs: dict[str, Any]) -> None:
    try:
        zarr.open_group(store.address, mode="r+", zarr_format=3).attrs[ATTRIBUTE] = attrs
    except OSError as error:
        raise StoreError(
            f"{store.address}: cannot be written to ({error.strerror or error}); nothing written "
            "so far is lost: make room and run again"
        ) from error
    store.attrs = attrs


def _lay_out(
    where: str | MemoryStore, layout: Layout, made_by: Mapping[str, Any], columns: Columns
) -> None:
    group = zarr.create_group(where, zarr_format=3)
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
    # Last: what can be opened as a store has all its metadata.
    group.attrs[ATTRIBUTE] = attributes(layout, made_by, columns)


def discard(address: str | Path, shard: int) -> None:
    """Remove what is damaged from a store: one shard's files, or, for -1, the whole store."""
    address = str(address)
    filesystem, root = filesystem_of(address)
    if shard < 0:
        filesystem.rm(root, recursive=True)
        return
    store = FeatureStore(address)
    keys = [shard_key(layer, shard) for layer in store.layout.layers]
    for key in keys:  # before the note on it: killed in between, it is missing, not trusted
        with suppress(FileNotFoundError):
            filesystem.rm_file(f"{root}/{key}")
    # No longer finished: a shard written anew may differ in its bits. The others may not.
    kept = {key: value for key, value in store.attrs.items() if key != "digest"}
    if isinstance(noted := kept.get("sha256"), dict):
        kept["sha256"] = {key: value for key, value in noted.items() if key not in keys}
    _write_attributes(store, kept)
