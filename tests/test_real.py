"""A small run on real images with real weights, from a local mirror directory."""

import hashlib
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Workspace

from cache.store import open_store
from pipeline.archives import NAMES, Archive
from pipeline.signs import listed_images
from stages.demo import checksums

MIRROR = os.environ.get("FC7CACHE_MIRROR", "")
WEIGHTS = os.environ.get("FC7CACHE_WEIGHTS", "")

pytestmark = pytest.mark.skipif(
    not (MIRROR and WEIGHTS),
    reason="real images and weights: FC7CACHE_MIRROR and FC7CACHE_WEIGHTS are not set",
)
TRACKS, FRAMES, TEST_IMAGES = 5, 2, 400


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real archives with two frames each of five tracks of every class, and 400 test images."""
    folder = tmp_path_factory.mktemp("real")
    source = {part: Archive(Path(MIRROR) / name) for part, name in NAMES.items()}
    table = listed_images(source["train"], source["test"], source["test_labels"])
    train, test = table[table["split"] == "train"], table[table["split"] == "test"]
    nth_track = train.groupby("label")["track"].rank("dense")
    nth_frame = train.groupby("track")["frame"].rank("dense", ascending=False)
    train = train[(nth_track <= TRACKS) & (nth_frame <= FRAMES)]
    test = test.iloc[:TEST_IMAGES]

    def csv(rows: pd.DataFrame) -> str:
        names = rows["member"].str.rpartition("/")[2]
        columns = [names, rows["width"], rows["height"]]
        columns += [rows[f"roi_{end}"] for end in ("x1", "y1", "x2", "y2")]
        lines = pd.concat([*columns, rows["label"]], axis=1).astype(str).agg(";".join, axis=1)
        header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
        return "\r\n".join([header, *lines, ""])

    with zipfile.ZipFile(folder / NAMES["train"], "w") as archive:
        for label, rows in train.groupby("label"):
            base = f"GTSRB/Final_Training/Images/{label:05}"
            archive.writestr(f"{base}/GT-{label:05}.csv", csv(rows))
            for member in rows["member"]:
                archive.writestr(member, source["train"].read(member))
    with zipfile.ZipFile(folder / NAMES["test"], "w") as archive:
        for member in test["member"]:
            archive.writestr(member, source["test"].read(member))
    with zipfile.ZipFile(folder / NAMES["test_labels"], "w") as archive:
        archive.writestr("GT-final_test.csv", csv(test))
    return folder


def sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.fixture
def real(tmp_path: Path, small: Path) -> Workspace:
    workspace = Workspace(tmp_path / "project").set_up(small)
    workspace.set(
        "base", variant="torchvision", weights=WEIGHTS, sha256=sha256(WEIGHTS), layers=["pool5"]
    )
    workspace.set("heads.softmax", learning_rate=0.03, components=None, batch_rows=16)
    workspace.set("heads.mlp", components=256, hidden=128, epochs=30, batch_rows=16)
    workspace.set("heads.mlp", learning_rate=0.001)
    workspace.set("heads.logistic", C=[1000], max_iter=100)
    return workspace


def test_heads_on_real_features_are_near_a_closed_form_probe(real: Workspace) -> None:
    printed = real.repro()
    images = 43 * TRACKS * FRAMES + TEST_IMAGES
    summary = json.loads((real.root / "results/extract.json").read_text())
    assert summary["forwarded"] == images == summary["rows"]
    assert f"forwarded: {images}" in printed
    store = open_store(real.root / "data/features.zarr")
    assert store.made_by["weights"] == "file"
    x, label = store.features("pool5").astype(np.float64), store.column("label")
    x = np.sqrt(x)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    train, test = (np.flatnonzero(store.column("split") == part) for part in ("train", "test"))
    x -= x[train].mean(axis=0)
    target = np.eye(43)[label[train]]
    # Ridge in its dual form, (n, n) with n = 430 training rows.
    gram = x[train] @ x[train].T + 0.1 * np.eye(len(train))
    dual = np.linalg.solve(gram, target - target.mean(axis=0))
    probe = (x[test] @ x[train].T @ dual + target.mean(axis=0)).argmax(axis=1)
    reference = float(np.mean(probe == label[test]))
    assert reference > 0.4  # of 43 classes, from five signs of each
    accuracy = {
        name: figures["accuracy"]
        for name, figures in json.loads((real.root / "results/metrics.json").read_text())[
            "test"
        ].items()
    }
    assert accuracy["ridge"] > reference - 0.03
    # With so few images least squares does better than cross-entropy, by this much.
    assert min(accuracy[name] for name in ("softmax", "mlp", "logistic")) > reference - 0.15
    assert reference > min(accuracy["nearest_mean"], accuracy["neighbours"]) > 0.2
    assert "seeded" not in (real.root / "results/comparison.txt").read_text()


def test_weights_that_lack_a_layer_are_named(real: Workspace) -> None:
    real.run("stages.prepare")
    real.set("base", layers=["fc7"])
    printed = real.run("stages.extract", status=2)
    assert "no weights 'fc6_W', which the layers asked for need; it has conv1_W" in printed


def test_the_mirror_checks_out() -> None:
    stated = {}
    for line in (Path(MIRROR) / "MD5SUMS").read_text().splitlines():
        md5, name, *_ = line.split()
        stated[name] = md5
    assert checksums(Path(MIRROR)) == {part: stated[name] for part, name in NAMES.items()}
