"""A head of your own, a scikit-learn LinearSVC, through the same selection as the others.

Run after `dvc repro extract`, from the root: python examples/linear_svc.py [STORE]

For its place in the comparison, move the class to pipeline/linear.py and give it a block in
params.yaml; the README says how.
"""

import sys
from dataclasses import dataclass

import numpy as np
from sklearn.svm import LinearSVC

from cache.store import open_store
from pipeline.head import AffineHead, Positive
from pipeline.selection import select
from stages.params import Split
from stages.rows import folds_of, training_data


@dataclass(kw_only=True)
class LinearSVCHead(AffineHead, kind="linear_svc"):
    """One against the rest, squared hinge loss."""

    C: Positive

    def _fit(self, x, y, validation, watch):  # type: ignore[no-untyped-def]
        model = LinearSVC(C=self.C, random_state=0).fit(x, y)
        w, b = model.coef_.T.astype(np.float32), model.intercept_.astype(np.float32)
        if len(b) == 1:  # of two classes, scikit-learn keeps the second's score
            w, b = np.hstack([-w, w]), np.hstack([-b, b])
        self.layers_ = [(w, b)]


store = open_store(sys.argv[1] if len(sys.argv) > 1 else "data/features.zarr")
n_classes = int(store.column("label").max()) + 1
rows, data = training_data(store, [store.made_by["layers"][-1]], 1, n_classes)
split = Split(method="hold_out", val_fraction=0.2, folds=5, seed=0)
folds = folds_of(store.column("track")[rows], data.label, split)
candidates = [LinearSVCHead(scaling="sqrt_l2", components=256, C=C) for C in (0.3, 1, 3)]
found = select(candidates, folds, data)
for head, (outcome,) in zip(candidates, found.outcomes, strict=True):
    print(f"C {head.C:g}: {100 * outcome.accuracy:.1f} % on tracks held out")
