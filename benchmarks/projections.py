"""What smaller or whitened features are worth: validation accuracy of a ridge on training tracks.

    python benchmarks/projections.py STORE LAYER… [--components K …]

The layers are scaled by `sqrt_l2` and put side by side. What a line of the output names is learnt
anew on the training rows of each of five folds by track, and the best of twelve penalties is
quoted. The test set is not looked at.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.random_projection import GaussianRandomProjection

from cache.store import open_store
from pipeline.scaling import Scaling
from pipeline.splits import k_folds_by_track

ALPHAS = [a * 10.0**b for b in range(-3, 3) for a in (1, 3)]  # times a row's mean squared length
Floats = NDArray[np.float32]


def projected(train: Floats, held: Floats, k: int) -> Iterator[tuple[str, Floats, Floats]]:
    """Each way to K numbers: its name, and both sets of rows, which come centred."""
    thrown = GaussianRandomProjection(k, random_state=0).fit(train)
    yield f"random projection to {k}", thrown.transform(train), thrown.transform(held)
    pca = PCA(k, svd_solver="randomized", iterated_power=2, random_state=0).fit(train)
    low, low_held = pca.transform(train), pca.transform(held)
    yield f"{k} principal components", low, low_held
    for power, name in ((0.5, "half whitened"), (1, "whitened")):
        scale = low.std(axis=0) ** -power
        yield f"{k} principal components, {name}", low * scale, low_held * scale


def right(train: Floats, y: NDArray[np.int64], held: Floats) -> dict[float, NDArray[np.int64]]:
    """Penalty to the labels that a ridge predicts for what is held out."""
    target = np.where(y[:, None] == np.arange(y.max() + 1), np.float32(1), np.float32(-1))
    unit = float(np.square(train, dtype=np.float64).sum(axis=1).mean())
    fitted = {a: Ridge(a * unit, solver="cholesky").fit(train, target) for a in ALPHAS}
    return {a: ridge.predict(held).argmax(axis=1) for a, ridge in fitted.items()}


def main() -> None:
    """Print a line for each way and size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("store")
    parser.add_argument("layers", nargs="+", metavar="LAYER")
    parser.add_argument("--components", type=int, nargs="+", default=[512, 1024, 2048], metavar="K")
    given = parser.parse_args()
    store = open_store(given.store)
    rows = np.flatnonzero(store.column("split") == "train")
    label, track = store.column("label")[rows], store.column("track")[rows]
    features = [store.features(layer, rows) for layer in given.layers]
    correct: dict[str, dict[float, int]] = defaultdict(lambda: defaultdict(int))
    for train, held in k_folds_by_track(track, label, folds=5, seed=0):
        scaling = Scaling("sqrt_l2")
        x = scaling.fit_transform([block[train] for block in features])
        x_held = scaling.transform([block[held] for block in features])
        for k in given.components:
            for name, low, low_held in projected(x, x_held, k):
                for alpha, guess in right(low, label[train], low_held).items():
                    correct[name][alpha] += int((guess == label[held]).sum())
    print("| features | bytes an image (float16) | validation | best penalty |\n|---|---|---|---|")
    for name, counts in correct.items():
        alpha = max(counts, key=lambda a: counts[a])
        k = next(k for k in given.components if str(k) in name.split())
        print(f"| {name} | {2 * k} | {100 * counts[alpha] / len(rows):.2f} | {alpha:g} |")


if __name__ == "__main__":
    main()
