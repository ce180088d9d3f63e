"""A store boiled down to principal components: small enough to send, and linear heads lose little.

Learnt here are the mean and the directions, on training rows; labels have no part in it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import StoreError
from cache.store import FeatureStore
from pipeline.scaling import Kind, Scaling
from stages.files import whole_file


def write_reduced(
    store: FeatureStore, layers: Sequence[str], scaling: Kind, components: int, path: Path
) -> None:
    """Write an .npz: ``features`` (N, K) float16, every column, and how to reduce further images.

    To reduce others: scale each layer as ``scaling`` says, put them side by side in the order of
    ``layers``, subtract ``mean`` (D,), multiply by ``basis`` (D, K) float16.

    Args:
        store: Finished.
        layers: One or several of its arrays.
        scaling: See `pipeline.scaling.Scaling`; ``scale`` is written too where it learns one.
        components: K; fewer where there are fewer training rows or features.
        path: Where to; written under another name first, so never half there.

    Raises:
        StoreError: No such layer, no training rows, numbers too large for float16.
        OSError: The disk refuses.
    """
    train = np.flatnonzero(store.column("split") == "train")
    if not len(train):
        raise StoreError(f"{store.address}: no training rows to learn components from")
    learnt = Scaling(scaling, components)
    learnt.fit_transform([store.features(layer, train) for layer in layers])
    # As written below, so that others who reduce by it get what is written.
    basis = learnt.basis_.astype(np.float16)
    learnt.basis_ = basis.astype(np.float32)
    features = np.empty((store.layout.rows, basis.shape[1]), np.float16)
    for shard in store.layout.shards:
        low, high = store.layout.bounds(shard)
        with np.errstate(over="ignore"):
            features[low:high] = learnt.transform([store.shard(layer, shard) for layer in layers])
    if not np.isfinite(features).all():
        raise StoreError(f"{store.address}: components too large for float16; scale by l2 first")
    columns: dict[str, Any] = {name: store.column(name) for name in store.columns}
    state = {name.rstrip("_"): getattr(learnt, name) for name in learnt.learned}
    state["basis"] = basis
    with whole_file(path) as part, part.open("wb") as file:
        np.savez(
            file,
            features=features,
            layers=np.array(layers),
            scaling=np.array(scaling),
            fingerprint=np.array(store.fingerprint),
            **state,
            **columns,
        )
