"""A layer and the columns, in formats that other tools read."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import StoreError
from cache.store import FeatureStore


def export(store: FeatureStore, layer: str, path: Path, form: str) -> None:
    """Write one layer with every column beside it.

    Args:
        store: What to read.
        layer: One of its layers.
        path: Where to; written under another name first, so never half there.
        form: "npz" (array ``features`` (N, D) and the columns) or "parquet" (one row per image,
            ``features`` a list of D; digests as hexadecimal text).

    Raises:
        StoreError: No such layer or form, pyarrow missing, the disk refuses.
    """
    if layer not in store.layout.layers:
        raise StoreError(
            f"{store.address}: no layer {layer!r}; it has {', '.join(store.layout.layers)}"
        )
    writers = {"npz": _npz, "parquet": _parquet}
    if form not in writers:
        raise StoreError(f"no format {form!r}; expected {' or '.join(writers)}")
    part = path.with_name(f".{path.name}.part")
    try:
        writers[form](store, layer, part)
        part.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            part.unlink()


def _npz(store: FeatureStore, layer: str, path: Path) -> None:
    columns: dict[str, Any] = {name: store.column(name) for name in store.columns}
    with path.open("wb") as file:
        np.savez(file, features=store.features(layer), **columns)


def _parquet(store: FeatureStore, layer: str, path: Path) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise StoreError("parquet needs pyarrow: pip install 'fc7cache[parquet]'") from error
    columns: dict[str, Any] = {}
    for name in store.columns:
        values = store.column(name)
        columns[name] = [v.tobytes().hex() for v in values] if values.ndim == 2 else values
    width = store.layout.layers[layer]
    features = pa.list_(pa.from_numpy_dtype(np.dtype(store.layout.dtype)), width)
    fields = [(name, pa.array(values[:1]).type) for name, values in columns.items()]
    schema = pa.schema([*fields, ("features", features)])
    with pq.ParquetWriter(path, schema) as writer:
        for shard in store.layout.shards:
            lo, hi = store.layout.bounds(shard)
            flat = pa.array(store.shard(layer, shard).ravel())
            block = pa.FixedSizeListArray.from_arrays(flat, width)
            table = {name: values[lo:hi] for name, values in columns.items()}
            writer.write_table(pa.table(table | {"features": block}, schema=schema))
