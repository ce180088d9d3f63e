"""Opening and reading a store."""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import BaseZarrError

from cache.errors import DamagedError, StoreError, UnreachableError
from cache.pointer import followed
from cache.remote import filesystem_of, unanswered
from cache.spec import (
    ATTRIBUTE,
    FORMAT,
    Layout,
    column_key,
    fingerprint,
    metadata_digest,
    shard_key,
)

Block = NDArray[np.floating[Any]]

# What zarr and its codecs raise for bytes that are not what was written.
_UNREADABLE = (
    BaseZarrError, ValueError, RuntimeError, OSError, KeyError, TypeError, IndexError, struct.error,
    ArithmeticError, AttributeError, ImportError,
)  # fmt: skip


class FeatureStore:
    """A store opened for reading.

    Attributes:
        address: Where it is: a local path or an fsspec address; of a pointer, what it names.
        layout: Rows, layers, shards.
        made_by: The readable parts of what made the features.
        fingerprint: sha256 over those parts.
    """

    def __init__(self, address: str | Path) -> None:
        """Open without asking whether the store is finished; users call `open_store`.

        Raises:
            StoreError: Nothing there, not one of our stores, or of a newer format.
            DamagedError: Attributes or metadata that do not fit together.
        """
        self.address, digest = followed(str(address))
        self._checked: set[str] = set()  # files whose sha256 was found to be the noted one
        try:
            self.group = zarr.open_group(self.address, mode="r", zarr_format=3)
            attrs: dict[str, Any] = dict(self.group.attrs)[ATTRIBUTE]  # type: ignore[assignment]
            if not isinstance(attrs, dict):
                raise TypeError(f"{ATTRIBUTE} is no mapping")
        except (FileNotFoundError, *_UNREADABLE) as error:
            if not isinstance(fault := self.fault(error, "", "zarr.json"), DamagedError):
                raise fault from error
            raise StoreError(
                f"{self.address}: expected a feature store, found none ({error}); "
                "make it with `dvc repro extract`, or fetch it with `dvc pull`"
            ) from error
        if attrs.get("format") != FORMAT:
            raise StoreError(
                f"{self.address}: store format {attrs.get('format')}; this version reads format "
                f"{FORMAT}; install the version of fc7cache that made the store"
            )
        if digest not in (None, attrs.get("digest")):
            raise DamagedError(
                f"{self.address}: not the store that {address} names; run `dvc repro extract`"
            )
        self.attrs = attrs
        try:
            self.layout = Layout(
                attrs["rows"],
                attrs["layers"],
                attrs["dtype"],
                attrs["shard_rows"],
                attrs["chunk_rows"],
            )
            self.made_by: dict[str, Any] = attrs["made_by"]
            self.fingerprint: str = attrs["fingerprint"]
            self.columns: list[str] = attrs["columns"]
            if not isinstance(self.columns, list) or not all(
                isinstance(name, str) for name in self.columns
            ):
                raise TypeError(f"columns are {self.columns!r}")
        except (KeyError, ValueError, TypeError) as error:
            raise DamagedError(f"{self.address}: attributes are damaged: {error}") from error

    def metadata_fault(self) -> str | None:
        """What is wrong with the metadata of a finished store, or None."""
        if "digest" not in self.attrs:
            return "the store was never finished"
        if self.fingerprint != fingerprint(self.made_by):
            return "fingerprint and made_by disagree: an attribute was edited"
        try:
            digest = metadata_digest_of(self.address, self.attrs)
        except (OSError, ValueError) as error:
            fault = self.fault(error, f"a zarr.json is lost or damaged ({error})", "zarr.json")
            if not isinstance(fault, DamagedError):
                raise fault from error
            return str(fault)
        if self.attrs["digest"] != digest:
            return "metadata does not match its digest: an attribute or a zarr.json was edited"
        return None

    def sizes(self) -> dict[str, int]:
        """Bytes of each file that is there, by its path below the store."""
        filesystem, root = filesystem_of(self.address)
        files = filesystem.find(root, detail=True)
        return {path[len(root) :].lstrip("/"): info["size"] for path, info in files.items()}

    def present_shards(self) -> list[int]:
        """Shards whose file is there, and not empty, in every layer."""
        sizes = self.sizes()
        return [
            shard
            for shard in self.layout.shards
            if all(sizes.get(shard_key(layer, shard), 0) for layer in self.layout.layers)
        ]

    def column(self, name: str) -> NDArray[Any]:
        """A whole column: (N,) strings or integers, or (N, 32) uint8 for digests.

        Raises:
            DamagedError: Lost or altered bytes.
        """
        key = f"{name}/zarr.json"
        try:
            array = self._array(name)
            key = column_key(name, array.ndim)
            self._check(key)
            if array.nchunks_initialized < array.nchunks:  # it would read as zeros
                raise ValueError("its file is lost")
            values = np.asarray(array[:])
        except StoreError:
            raise
        except _UNREADABLE as error:
            message = f"{self.address}: column {name} is damaged: {error}"
            raise self.fault(error, message, key) from error
        if values.dtype.kind != "T":
            return values
        return values.astype(f"U{max(1, int(np.strings.str_len(values).max()))}")

    def shard(self, layer: str, shard: int) -> Block:
        """All rows of one shard: (rows, D).

        Raises:
            DamagedError: Lost or altered bytes.
        """
        return self._read(layer, *self.layout.bounds(shard))

    def shard_fault(self, layer: str, shard: int) -> DamagedError | None:
        """What is wrong with one shard file, all of it read and decoded; None if nothing is."""
        try:
            self.shard(layer, shard)
        except DamagedError as error:
            return error
        return None

    def sha256(self, key: str) -> str:
        """sha256 of a file's bytes."""
        filesystem, root = filesystem_of(self.address)
        return hashlib.sha256(filesystem.cat_file(f"{root}/{key}")).hexdigest()

    def features(self, layer: str, rows: NDArray[np.int64] | None = None) -> Block:
        """Features of the rows asked for, in that order, or of all.

        Args:
            layer: One of ``layout.layers``.
            rows: (n,) row numbers; None for all.

        Returns:
            (n, D) in the store's dtype.

        Raises:
            StoreError: No such layer.
            DamagedError: Lost or altered bytes.
        """
        if layer not in self.layout.layers:
            raise StoreError(
                f"{self.address}: no layer {layer!r}; it has {', '.join(self.layout.layers)}"
            )
        rows = np.arange(self.layout.rows)[slice(None) if rows is None else rows]
        out = np.empty((len(rows), self.layout.layers[layer]), self.layout.dtype)
        shard_of = rows // self.layout.shard_rows
        for shard in np.unique(shard_of):
            wanted = np.flatnonzero(shard_of == shard)
            lo, hi = int(rows[wanted].min()), int(rows[wanted].max()) + 1
            out[wanted] = self._read(layer, lo, hi)[rows[wanted] - lo]
        return out

    def _check(self, key: str, shard: int = -1) -> None:
        """Hold a file against the sha256 that `finish` noted, once for each opened store.

        A chunk's own checksum says that it is whole, not that it is the one written here.
        """
        noted = self.attrs.get("sha256")
        # Where there is no note, it is not finished, or edited, which `metadata_fault` tells.
        if key in self._checked or not isinstance(noted, dict) or key not in noted:
            return
        try:
            same = noted[key] == self.sha256(key)
        except FileNotFoundError:
            return  # which reading it tells
        except OSError as error:
            raise self.fault(error, f"{self.address}: {key}: {error}", key, shard) from error
        if not same:
            raise DamagedError(
                f"{self.address}: {key} is damaged (not what was written); run `fc7cache repair`",
                self.address,
                shard,
            )
        self._checked.add(key)

    def fault(self, error: Exception, message: str, key: str, shard: int = -1) -> StoreError:
        """What an error on reading a file means: damage, or a store that does not answer.

        Args:
            error: What was raised.
            message: What to say of damage.
            key: The file.
            shard: Which one; -1 for none.
        """
        if (cause := unanswered(self.address, key, error)) is None:
            return DamagedError(message, self.address, shard)
        return UnreachableError(
            f"{self.address}: cannot be read now ({cause}); nothing is lost: check the network and "
            "the credentials, and run again"
        )

    def _array(self, name: str) -> zarr.Array[Any]:
        array = self.group[name]
        if not isinstance(array, zarr.Array):
            raise ValueError(f"{name} is no array")
        return array

    def _read(self, layer: str, lo: int, hi: int) -> Block:
        shard = lo // self.layout.shard_rows
        self._check(shard_key(layer, shard), shard)
        where = f"{self.address}: {shard_key(layer, shard)}"
        try:
            block = np.asarray(self._array(layer)[lo:hi])
        except _UNREADABLE as error:
            message = f"{where} is damaged ({error}); run `fc7cache repair`"
            raise self.fault(error, message, shard_key(layer, shard), shard) from error
        # A chunk that is not there reads as the fill value, NaN.
        if block.shape != (hi - lo, self.layout.layers[layer]) or not np.isfinite(block).all():
            raise DamagedError(f"{where} lacks rows; run `fc7cache repair`", self.address, shard)
        return block


def open_store(address: str | Path, made_by: Mapping[str, Any] | None = None) -> FeatureStore:
    """Open a finished store.

    Args:
        address: A local path or an fsspec address.
        made_by: What the reader believes made it, or some parts of that; checked where given.

    Raises:
        StoreError: Absent, unfinished, of a newer format, or made by something else.
        DamagedError: Edited metadata, a lost shard.
    """
    store = FeatureStore(str(address))
    if fault := store.metadata_fault():
        raise DamagedError(f"{address}: {fault}; run `dvc repro extract`, or `dvc checkout`")
    if missing := sorted(set(store.layout.shards) - set(store.present_shards())):
        raise DamagedError(
            f"{address}: {len(missing)} of {len(store.layout.shards)} shards are lost, the first "
            f"is {missing[0]}; run `fc7cache repair`",
            store.address,
            missing[0],
        )
    if made_by is not None:
        for part, ours in sorted(made_by.items()):
            if (theirs := store.made_by.get(part)) != ours:
                raise StoreError(
                    f"{address}: made with {part} {theirs!r}, but params.yaml says {ours!r}; "
                    "run `dvc repro extract`"
                )
    return store


def metadata_digest_of(address: str, attrs: Mapping[str, Any]) -> str:
    """The digest that a store with these attributes should state.

    Raises:
        OSError: A metadata document is lost.
        ValueError: A metadata document is not JSON.
    """
    filesystem, root = filesystem_of(address)
    names = [*attrs["layers"], *attrs["columns"]]
    files = {name: f"{root}/{name}/zarr.json" for name in names}
    documents = {name: json.loads(filesystem.cat_file(file)) for name, file in files.items()}
    group = json.loads(filesystem.cat_file(f"{root}/zarr.json"))
    documents[""] = {key: value for key, value in group.items() if key != "attributes"}
    return metadata_digest(attrs, documents)
