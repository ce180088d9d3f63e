"""Open the feature store and use it: each test image to the class with the nearest mean.

Run after `dvc repro extract`, from the root: python examples/nearest_mean.py
"""

import sys

from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import normalize

from cache.store import open_store

store = open_store(sys.argv[1] if len(sys.argv) > 1 else "data/features.zarr")
layer = list(store.layout.layers)[-1]
x, label = normalize(store.features(layer)), store.column("label")
train = store.column("split") == "train"

means = NearestCentroid().fit(x[train], label[train])
accuracy = means.score(x[~train], label[~train])
print(f"nearest class mean on {layer}: {100 * accuracy:.1f} % of {(~train).sum()} test images")
