"""How far settings of the base carry: the tables of docs/accuracy.md.

    python benchmarks/accuracy.py ARCHIVES WEIGHTS [RUN …]

ARCHIVES is a folder with the three archives of GTSRB (their checksums are taken as they are),
WEIGHTS an .npz of torchvision's convolutions. Each run is `dvc repro` in a workspace of its own
under accuracy/, so what is done is not done again. Heads are validated on all training tracks, in
five folds; the test set is scored once for each row printed.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from cache.store import open_store
from pipeline.views import view_count, view_name
from stages.demo import checksums, copy_project

ROOT = Path("accuracy")
CLAHE = {"clip": 4, "tiles": 4}
EVERY = ["conv1", "conv2", "conv3", "conv4", "conv5"]


def ridge(*features: str, **settings: Any) -> dict[str, Any]:
    """A block of params.yaml."""
    block = {"kind": "ridge", "scaling": "sqrt_l2", "components": None, "alpha": 0.1}
    return {**block, "features": list(features), **settings}


def mlp(*features: str, **settings: Any) -> dict[str, Any]:
    """A block of params.yaml."""
    block = {"kind": "mlp", "scaling": "sqrt_l2", "components": 2048, "hidden": 1024}
    block |= {"dropout": 0.5, "learning_rate": 0.003, "weight_decay": 0, "batch_rows": 128}
    block |= {"epochs": 20, "out_of_core": False, "seeds": [0, 1, 2]}
    return {**block, "features": list(features), **settings}


LAYERS = {name: ridge(name) for name in EVERY} | {
    "conv2-3": ridge("conv2", "conv3"),
    "conv2-4": ridge("conv2", "conv3", "conv4"),
    "conv2-5": ridge("conv2", "conv3", "conv4", "conv5"),
}
TOP = {name: LAYERS[name] for name in ("conv3", "conv2-3", "conv2-4")}

# Settings of the base and of the store, and heads to compare on them.
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "whole": ({"layers": ["conv3", "conv5"]}, {}, {k: LAYERS[k] for k in ("conv3", "conv5")}),
    "roi": ({"layers": EVERY, "crop": "roi"}, {}, LAYERS),
    "contrast": (
        {"layers": EVERY, "crop": "roi", "contrast": CLAHE},
        {},
        LAYERS
        | {
            "conv3-none": ridge("conv3", scaling="none"),
            "conv3-l2": ridge("conv3", scaling="l2"),
            "conv3-pca1024": ridge("conv3", components=1024),
            "conv2-3-pca2048": ridge("conv2", "conv3", components=2048),
            "mlp": mlp("conv2", "conv3"),
        },
    ),
    "float16": (
        {"layers": ["conv2", "conv3", "conv4"], "crop": "roi", "contrast": CLAHE},
        {"dtype": "float16"},
        TOP,
    ),
    "bfloat16": (
        {
            "layers": ["conv2", "conv3", "conv4"],
            "crop": "roi",
            "contrast": CLAHE,
            "precision": "bfloat16",
        },
        {"dtype": "float16"},
        TOP,
    ),
    "views": (
        {"layers": ["conv2", "conv3", "conv4"], "crop": "roi", "contrast": CLAHE, "shift": 0.04},
        {"dtype": "float16"},
        TOP,
    ),
}


def workspace(name: str, archives: Path, weights: Path) -> Path:
    """A copy of the project with the settings of one run."""
    base, store, heads = RUNS[name]
    folder = ROOT / name
    copy_project(folder)
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    params["prepare"] |= {"source": str(archives.resolve()), "md5": checksums(archives)}
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    params["base"] |= {"variant": "torchvision", "weights": str(weights.resolve())}
    params["base"] |= {"sha256": digest, **base}
    params["store"] |= store
    params["split"] |= {"method": "k_fold"}
    params["heads"] = heads
    params["study"] |= {"heads": [next(iter(heads))], "fractions": []}
    yaml.dump(params, folder / "params.yaml")
    return folder


def nbytes(store: Path, layers: list[str], views: int) -> float:
    """Bytes on disk of what a head reads, per image."""
    arrays = [store / view_name(layer, view) for layer in layers for view in range(views)]
    files = [file for array in arrays for file in array.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / open_store(store).layout.rows


def rows(folder: Path) -> list[str]:
    """A line of a Markdown table for each head."""
    metrics = json.loads((folder / "results/metrics.json").read_text())
    params = YAML(typ="safe").load(folder / "params.yaml")
    extracted = json.loads((folder / "results/extract.json").read_text())
    views = view_count(params["base"]["shift"])
    lines = []
    for name, block in params["heads"].items():
        validation, test = metrics["validation"][name], metrics["test"][name]
        training = json.loads((folder / "results/training" / f"{name}.json").read_text())
        size = nbytes(folder / "data/features.zarr", block["features"], views)
        cells = [
            folder.name,
            name,
            f"{100 * validation['accuracy']:.2f}",
            f"{100 * test['accuracy']:.2f}",
            f"{100 * test['accuracy_low']:.2f} to {100 * test['accuracy_high']:.2f}",
            f"{size / 1000:.1f}",
            f"{extracted['images_per_second']:.0f}",
            f"{training['seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("archives", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"of {', '.join(RUNS)}; or all")
    given = parser.parse_args()
    if unknown := [name for name in given.runs if name not in RUNS]:
        parser.error(f"no run {unknown[0]!r}; choose from {', '.join(RUNS)}")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    scratch = {"FC7CACHE_SCRATCH": str(ROOT.resolve() / "scratch"), "PATH": path}
    dvc = [sys.executable, "-m", "dvc", "repro"]
    table = [
        "| run | head | validation | test | 95 % interval | kB an image | images/s | s to train |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in given.runs or RUNS:
        folder = workspace(name, given.archives, given.weights)
        subprocess.run(dvc, cwd=folder, env=os.environ | scratch, check=True)
        table += rows(folder)
    print("\n".join(table))


if __name__ == "__main__":
    main()
