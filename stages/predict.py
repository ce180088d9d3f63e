"""Single images through the base: a head's signs, or ImageNet's classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax

import pipeline
from cache.spec import fingerprint
from pipeline.classes import CLASS_NAMES
from pipeline.errors import InputError
from pipeline.features import forward
from pipeline.images import decode, pixels
from pipeline.saved import load_head
from stages.base import FrozenBase, load_base
from stages.params import Params

MODELS = Path("models")
TOP = 5
Answer = list[dict[str, Any]]  # the best first: class, name, probability


def image_files(given: Sequence[Path]) -> list[Path]:
    """Files as given; of a directory, every file in it that has an image's ending.

    Raises:
        InputError: Nothing there.
    """
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            known = Image.registered_extensions()
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in known)
            if not inside:
                raise InputError(f"{path}: no images in this folder")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"{path}: no such image")
    return files


def predict(params: Params, name: str | None, files: Sequence[Path]) -> dict[str, Any]:
    """What a trained head makes of images that are in no index; each is taken whole.

    Args:
        params: Settings; the base must be the one that the head's features came from.
        name: A trained head; None for the one best on validation.
        files: Images.

    Returns:
        "head", and "images": file name to Answer.

    Raises:
        InputError: No such head, another base, a file that is no image.
    """
    name = name or best_head(params)
    head, facts = load_head(MODELS / name)
    base = load_base(params)
    made_by = base.made_by()
    if facts["fingerprint"] != fingerprint(made_by):
        parts = [k for k, v in made_by.items() if facts["made_by"].get(k) != v]
        raise InputError(
            f"{MODELS / name}: trained on features with {parts[0]} "
            f"{facts['made_by'].get(parts[0])!r}, but params.yaml makes {made_by[parts[0]]!r}; "
            "run `dvc repro`"
        )
    proba = head.predict_proba(_features(base, facts["features"], files))
    classes = [(int(label), CLASS_NAMES[label]) for label in head.classes_]
    return {"head": name, "images": _answers(files, proba, classes)}


def classify(params: Params, files: Sequence[Path]) -> dict[str, Any]:
    """ImageNet's classes through fc8: whether the base itself is sound.

    Returns:
        "weights" ("seeded" or "file"), and "images": file name to Answer.

    Raises:
        InputError: Weights without fc8, a file that is no image.
    """
    settings = params.base.model_copy(update={"layers": ["fc8"]})
    base = load_base(params.model_copy(update={"base": settings}))
    scores = np.asarray(softmax(_features(base, "fc8", files), axis=1), np.float32)
    listing = Path(pipeline.__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8")
    names = [line.partition("\t")[2] for line in listing.splitlines()]
    if scores.shape[1] != len(names):
        raise InputError(
            f"params.yaml: base.variant {params.base.variant} has {scores.shape[1]} classes, not "
            f"ImageNet's {len(names)}"
        )
    return {
        "weights": base.made_by()["weights"],
        "images": _answers(files, scores, list(enumerate(names))),
    }


def best_head(params: Params) -> str:
    """The trained head with the best validation accuracy: test results choose nothing.

    Raises:
        InputError: None is trained.
    """
    accuracy = {}
    for name in params.heads:
        if (MODELS / name / "head.json").is_file():
            head, _ = load_head(MODELS / name)
            accuracy[name] = max(entry["val_accuracy"] for entry in head.history_)
    if not accuracy:
        raise InputError(f"{MODELS}: no trained head; run `dvc repro`")
    return max(accuracy, key=lambda name: accuracy[name])


def _features(base: FrozenBase, layer: str, files: Sequence[Path]) -> NDArray[np.float32]:
    images = (pixels(decode(file.read_bytes(), str(file)), base.input_px) for file in files)
    # All of them first: a file that is no image should be told before the network starts.
    return np.concatenate([block[layer] for block in forward(base.model, list(images))])


def _answers(
    files: Sequence[Path], proba: NDArray[np.float32], classes: Sequence[tuple[int, str]]
) -> dict[str, Answer]:
    return {
        str(file): [
            {"class": classes[k][0], "name": classes[k][1], "probability": round(float(row[k]), 6)}
            for k in np.argsort(-row, kind="stable")[:TOP]
        ]
        for file, row in zip(files, proba, strict=True)
    }
