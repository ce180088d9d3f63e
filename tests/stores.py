"""Small stores of known features, and the means to damage and to compare them."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.spec import Columns, Layout
from cache.store import Block, FeatureStore
from cache.writer import StoreWriter, create_store

LAYERS = {"fc6": 3, "fc7": 5}
MADE_BY = {"weights": "seeded", "layers": [*LAYERS], "dtype": "float32"}
SMALL = Layout(21, LAYERS, shard_rows=8, chunk_rows=2)


def columns_for(rows: int) -> dict[str, NDArray[Any]]:
    """Strings, integers and digests; every value its row's own."""
    digests = [hashlib.sha256(bytes([row % 256, row // 256])).digest() for row in range(rows)]
    return {
        "image_id": np.array([f"bild-{row:05d}-ü" for row in range(rows)]),
        "label": np.arange(rows) % 43,
        "sha256": np.frombuffer(b"".join(digests), np.uint8).reshape(rows, 32),
    }


def features_for(layout: Layout, seed: int = 0) -> dict[str, Block]:
    """Layer to (N, D); as after a ReLU, half of them zero."""
    rng = np.random.default_rng(seed)
    return {
        layer: np.maximum(rng.normal(size=(layout.rows, width)), 0).astype(layout.dtype)
        for layer, width in layout.layers.items()
    }


def write(
    store: StoreWriter, features: Mapping[str, Block], shards: Iterable[int]
) -> dict[str, str]:
    """Write some shards of the features of all rows; return what `StoreWriter.write` does."""
    written = {}
    for shard in shards:
        rows = slice(*store.layout.bounds(shard))
        written |= store.write(shard, {layer: block[rows] for layer, block in features.items()})
    return written


def start_store(
    path: Path,
    layout: Layout = SMALL,
    features: Mapping[str, Block] | None = None,
    shards: Iterable[int] | None = None,
    columns: Columns | None = None,
    made_by: Mapping[str, Any] = MADE_BY,
) -> StoreWriter:
    """Make an unfinished store with some of its shards, in the order given."""
    store = create_store(path, layout, made_by, columns or columns_for(layout.rows))
    write(store, features or features_for(layout), layout.shards if shards is None else shards)
    return store


def make_store(path: Path, *args: Any, **kwargs: Any) -> StoreWriter:
    """Make a finished store."""
    store = start_store(path, *args, **kwargs)
    store.finish()
    return store


def folder_of(store: FeatureStore) -> Path:
    """Where a store of this machine lies."""
    return Path(store.address)


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder, and its sha256."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON document."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, indent=2))


def swap_shards(path: Path, layer: str) -> None:
    """Exchange the files of the first two shards; all checksums stay right."""
    first, second = (path / layer / "c" / shard / "0" for shard in "01")
    first.rename(path / "aside")
    second.rename(first)
    (path / "aside").rename(second)
