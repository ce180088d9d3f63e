"""What a store is: its shape on disk, and what made it. Pure; nothing here touches a file.

A store is a Zarr v3 group. Per layer it has one array (N rows, D features), cut into shards of
whole rows; per column (image id, label, …) one array of N. The group's attributes hold, under
``fc7cache``, the layout, the readable parts of what made the features (``made_by``), the
fingerprint over those parts, and a digest over all metadata.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = 1
ATTRIBUTE = "fc7cache"
Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Layout:
    """Rows, layers and how they are cut.

    A shard is one file, written once and whole by one writer; a chunk is what is compressed,
    checksummed and read as a unit inside it.
    """

    rows: int
    layers: dict[str, int]  # name to D
    dtype: str = "float32"
    shard_rows: int = 2048
    chunk_rows: int = 256

    def __post_init__(self) -> None:
        """Check the numbers against each other.

        Raises:
            ValueError: Nothing to store, or sizes that do not divide.
        """
        numbers = self.rows, self.shard_rows, self.chunk_rows
        widths = self.layers.values() if isinstance(self.layers, dict) else [None]
        if not all(type(number) is int for number in (*numbers, *widths)):
            raise ValueError(f"expected whole numbers and layers with widths, got {self}")
        if self.rows < 1 or not self.layers:
            raise ValueError(f"a store needs rows and layers, got {self.rows} and {self.layers}")
        if self.chunk_rows < 1 or self.shard_rows < 1 or self.shard_rows % self.chunk_rows:
            raise ValueError(
                f"store.shard_rows ({self.shard_rows}) must be a multiple of "
                f"store.chunk_rows ({self.chunk_rows})"
            )
        if self.dtype not in ("float32", "float16"):
            raise ValueError(f"store.dtype: expected float32 or float16, got {self.dtype!r}")

    @property
    def shards(self) -> range:
        """Shard numbers, 0 to the last."""
        return range(-(-self.rows // self.shard_rows))

    def bounds(self, shard: int) -> tuple[int, int]:
        """First row of a shard and the one after its last."""
        return shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.rows)


def shard_key(layer: str, shard: int) -> str:
    """The shard's file, relative to the store."""
    return f"{layer}/c/{shard}/0"


def column_key(name: str, dimensions: int) -> str:
    """The column's one file, relative to the store."""
    return "/".join([name, "c", *["0"] * dimensions])


def canonical(value: Any) -> bytes:
    """JSON with one spelling for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def fingerprint(made_by: Mapping[str, Any]) -> str:
    """sha256 over the parts that the floats depend on."""
    return hashlib.sha256(canonical(made_by)).hexdigest()


def attributes(
    layout: Layout, made_by: Mapping[str, Any], columns: Iterable[str]
) -> dict[str, Any]:
    """The group's attributes but for the digest, which `finish` adds."""
    return {
        "format": FORMAT,
        "fingerprint": fingerprint(made_by),
        "made_by": dict(made_by),
        "columns": sorted(columns),
        **asdict(layout),
    }


def metadata_digest(attrs: Mapping[str, Any], documents: Mapping[str, Any]) -> str:
    """sha256 over the attributes (without the digest) and every array's metadata document."""
    plain = {key: value for key, value in attrs.items() if key != "digest"}
    return hashlib.sha256(canonical([plain, dict(documents)])).hexdigest()


def content_digest(layout: Layout, columns: Columns) -> str:
    """sha256 over the layout and every column: which rows a store is to hold, and in what shape."""
    digest = hashlib.sha256(canonical(asdict(layout)))
    for name in sorted(columns):
        values = columns[name]
        text = values.dtype.kind in "OUT"
        digest.update(name.encode())
        digest.update(
            canonical(values.tolist()) if text else np.ascontiguousarray(values).tobytes()
        )
    return digest.hexdigest()
