"""Open the feature store and use it: a closed-form linear probe, scored on the test images.

Run after `dvc repro extract`, from the root: python examples/linear_probe.py [STORE]
"""

import sys

from sklearn.linear_model import RidgeClassifier

from cache.store import open_store
from pipeline.scaling import Scaling

store = open_store(sys.argv[1] if len(sys.argv) > 1 else "data/features.zarr")
layer = store.made_by["layers"][-1]
features, label = store.features(layer), store.column("label")
train = store.column("split") == "train"

scaling = Scaling("sqrt_l2")
x, x_test = scaling.fit_transform([features[train]]), scaling.transform([features[~train]])

probe = RidgeClassifier(alpha=0.1).fit(x, label[train])
accuracy = probe.score(x_test, label[~train])
print(f"ridge on {layer}: {100 * accuracy:.1f} % of {(~train).sum()} test images")
