"""A store's features in the forms that other tools compute with, in a line each.

    store = open_store("data/features.zarr")  # or "s3://bucket/features.zarr"
    x, y = as_arrays(store, "fc7", split="train")
    dataset = as_xarray(store)
    stream = as_tf_data(store, "fc7", split="train", batch_rows=128, seed=0)

Whatever is read this way is read by `cache.store.FeatureStore`, and so checked: lost or altered
bytes are an error and never a number. N rows, D features over all layers asked for.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import StoreError
from cache.store import Block, FeatureStore

if TYPE_CHECKING:
    import tensorflow as tf
    import xarray as xr

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


def as_arrays(
    store: FeatureStore,
    layers: str | Sequence[str],
    *,
    split: str | None = None,
    columns: Sequence[str] = ("label",),
) -> tuple[NDArray[Any], ...]:
    """Features and labels in memory, as scikit-learn takes them.

    With ``columns=["label", "track"]`` there is a third array, the groups of
    `sklearn.model_selection.GroupKFold`: frames of one track are near-identical, and must not be
    on both sides of a split.

    Args:
        store: What to read.
        layers: One layer, or several, which come side by side.
        split: A value of the column ``split``; None for all rows.
        columns: What comes beside the features.

    Returns:
        Features (N, D) float32, and an array (N, …) for each column.

    Raises:
        StoreError: No such layer, column or split, or no layer at all.
        DamagedError: Lost or altered bytes.
    """
    rows = _rows_of(store, split)
    features = _features(store, _named(store, layers), rows)
    return features, *(_column(store, name)[rows] for name in columns)


def as_xarray(store: FeatureStore) -> "xr.Dataset":
    """The whole store as a Dataset of Dask arrays, with a chunk for each shard.

    Columns are coordinates along ``image``, and are read now; features are read when they are
    computed with, and only the rows in question. Unlike with `xarray.open_zarr`, to which a lost
    chunk is NaN and an exchanged file is as good as another, each file is held against the sha256
    noted in the store when its first row is read, and each chunk against its checksum.

    Args:
        store: What to read; a computation that meets lost or altered bytes ends with DamagedError.

    Returns:
        A variable for each layer, dimensions as in the store: ``image`` and ``feature``, or
        ``image`` and ``fc7_feature`` where layers differ in width.

    Raises:
        StoreError: xarray or Dask is not installed.
        DamagedError: A column with lost or altered bytes.
    """
    try:
        import dask.array as da
        import xarray as xr
    except ImportError as error:
        raise StoreError(f"as_xarray needs {error.name}: pip install 'fc7cache[xarray]'") from error
    layout = store.layout
    variables = {
        layer: xr.Variable(
            _dimensions(store, layer),
            da.from_array(  # type: ignore[no-untyped-call]
                _Lazy(store, layer),
                chunks=(layout.shard_rows, width),
                name=f"{layer}-{store.attrs['digest']}",
                meta=np.empty((0, 0), layout.dtype),
            ),
        )
        for layer, width in layout.layers.items()
    }
    columns = {
        name: xr.Variable(_dimensions(store, name), store.column(name)) for name in store.columns
    }
    attrs = {"address": store.address, "fingerprint": store.fingerprint}
    return xr.Dataset(variables, columns, attrs)


def as_tf_data(
    store: FeatureStore,
    layers: str | Sequence[str],
    *,
    split: str | None = None,
    batch_rows: int = 128,
    seed: int | None = None,
    label: str = "label",
) -> "tf.data.Dataset":
    """Batches of features and labels, streamed: for stores larger than memory.

    One shard is read while another is used, so about two are in memory whatever the size of the
    store. Each pass over the dataset reads it anew, in an order that the seed and the number of
    the pass give: shards in a random order, and rows at random within each. On the same rows, it is
    the order of a head with ``out_of_core`` and this seed.

    Args:
        store: What to read; lost or altered bytes end a pass with an error of TensorFlow's that
            has the text of the DamagedError.
        layers: One layer, or several, which come side by side.
        split: A value of the column ``split``; None for all rows.
        batch_rows: Rows in a batch; the last one of a pass may have fewer.
        seed: Of the order; None for rows as they lie, in every pass.
        label: The column to learn.

    Returns:
        Of known length; elements are (n, D) float32 and (n,).

    Raises:
        StoreError: TensorFlow is not installed; no such layer, column or split, or no layer at
            all; batches of no rows.
        DamagedError: A column with lost or altered bytes.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise StoreError("as_tf_data needs tensorflow: pip install tensorflow") from error
    if batch_rows < 1:
        raise StoreError(f"batch_rows: expected at least 1, got {batch_rows}")
    names, rows = _named(store, layers), _rows_of(store, split)
    width = _features(store, names, rows[:0]).shape[1]
    y = _column(store, label)
    shard = rows // store.layout.shard_rows
    shards = np.split(rows, np.flatnonzero(np.diff(shard)) + 1)
    passes = count()

    def parts() -> Iterator[tuple[Floats, NDArray[Any]]]:
        order = shards
        if seed is not None:
            rng = np.random.default_rng([seed, next(passes)])
            order = [rng.permutation(shards[k]) for k in rng.permutation(len(shards))]
        # By way of generators, which keep no part while the next one is read.
        yield from ((_features(store, names, part), y[part]) for part in order)

    spec = (
        tf.TensorSpec((None, width), tf.float32),
        tf.TensorSpec((None, *y.shape[1:]), tf.as_dtype(y.dtype)),
    )
    whole = tf.data.Dataset.from_generator(parts, output_signature=spec).prefetch(1)
    length = tf.data.experimental.assert_cardinality(-(-len(rows) // batch_rows))
    return whole.rebatch(batch_rows).apply(length)


class _Lazy:
    """A layer as Dask wants it: an array of which it can ask for parts."""

    ndim = 2

    def __init__(self, store: FeatureStore, layer: str) -> None:
        self.shape = store.layout.rows, store.layout.layers[layer]
        self.dtype = np.dtype(store.layout.dtype)
        self._store, self._layer = store, layer

    def __getitem__(self, key: tuple[Any, Any]) -> Block:
        rows, features = key
        numbers = np.arange(self.shape[0])[rows]  # one, or several
        block = self._store.features(self._layer, numbers.reshape(-1))[:, features]
        return block.reshape(numbers.shape + block.shape[1:])


def _named(store: FeatureStore, layers: str | Sequence[str]) -> list[str]:
    names = [layers] if isinstance(layers, str) else list(layers)
    if not names:
        has = ", ".join(store.layout.layers)
        raise StoreError(f"{store.address}: expected at least one layer, got none; it has {has}")
    return names


def _dimensions(store: FeatureStore, name: str) -> tuple[str, ...]:
    return store.group[name].metadata.dimension_names  # type: ignore[union-attr,return-value]


def _column(store: FeatureStore, name: str) -> NDArray[Any]:
    if name not in store.columns:
        raise StoreError(f"{store.address}: no column {name!r}; it has {', '.join(store.columns)}")
    return store.column(name)


def _rows_of(store: FeatureStore, split: str | None) -> Rows:
    if split is None:
        return np.arange(store.layout.rows)
    values = _column(store, "split")
    rows = np.flatnonzero(values == split)
    if not len(rows):
        found = ", ".join(map(str, np.unique(values)))
        raise StoreError(f"{store.address}: no rows of split {split!r}; it has {found}")
    return rows


def _features(store: FeatureStore, layers: Sequence[str], rows: Rows) -> Floats:
    """(n, D) of several layers side by side."""
    blocks = [store.features(layer, rows) for layer in layers]
    whole = blocks[0] if len(blocks) == 1 else np.hstack(blocks)
    return whole.astype(np.float32, copy=False)
