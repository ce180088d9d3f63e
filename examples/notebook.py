"""The store in a notebook: in memory for scikit-learn, lazily in xarray, streamed into Keras.

Run after `dvc repro extract`, from the root: python examples/notebook.py [STORE]

STORE may be remote, "s3://bucket/features.zarr".
"""

import sys

from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GroupKFold, cross_val_score

from cache.load import as_arrays, as_tf_data, as_xarray
from cache.store import open_store
from pipeline.backend import keras

address = sys.argv[1] if len(sys.argv) > 1 else "data/features.zarr"

# Arrays. Frames of one track are near-identical, so no track may be on both sides of a split.
store = open_store(address)
layer = store.made_by["layers"][-1]
x, y, track = as_arrays(store, layer, split="train", columns=["label", "track"])
accuracy = cross_val_score(RidgeClassifier(), x, y, groups=track, cv=GroupKFold(5))
print(f"ridge on {layer}: {100 * accuracy.mean():.1f} % on tracks held out")

# A Dataset of lazy arrays: rows are read when they are computed with.
dataset = as_xarray(open_store(address))
means = dataset[layer].groupby(dataset["label"]).mean("image").compute()
print(f"{layer}: {dataset[layer].shape}; class means {means.shape}")

# Streamed, for more than memory holds.
stream = as_tf_data(open_store(address), layer, split="train", batch_rows=128, seed=0)
classes = int(y.max()) + 1  # labels count from 0
model = keras().Sequential([keras().layers.BatchNormalization(), keras().layers.Dense(classes)])
loss = keras().losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])
# The stream has an order of its own.
history = model.fit(stream, epochs=5, shuffle=False, verbose=0).history
print(f"softmax on {layer}: {100 * history['accuracy'][-1]:.1f} % of the rows it was trained on")
