"""Single images through the base: a head's classes, or ImageNet's."""

import glob
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax

import pipeline
from cache.errors import StoreError
from cache.similar import most_similar
from cache.spec import fingerprint
from cache.store import FeatureStore, open_store
from pipeline.errors import InputError
from pipeline.images import decode, named_as_image
from pipeline.predicted import Neighbour, Predicted, render_predicted
from pipeline.saved import load_head
from pipeline.thumbnails import Thumbnails, thumbnail
from pipeline.views import view_name
from stages.base import FrozenBase, load_base
from stages.console import bar, printable
from stages.params import Params
from stages.places import MODELS, STORE, THUMBNAILS, TRAINING
from stages.text import SEEDED

TOP = 5
SHOWN_PX = 320  # longest side of an image on the page
Answer = list[dict[str, Any]]  # the best first: class, name, probability


def image_files(given: Sequence[str]) -> list[Path]:
    """The images that files, folders and patterns name, each once.

    A file is taken as it is, whatever its ending. Of a folder, and of what a pattern matches,
    every file is taken that has an image's ending; folders are searched to their depth.

    Args:
        given: Paths or glob patterns; ``**`` stands for folders at any depth. What is there
            under its very name is no pattern.

    Raises:
        InputError: Nothing there, no images in a folder, no match of a pattern.
    """
    files: list[Path] = []
    for text in given:
        path = Path(text)
        if path.is_file():
            files.append(path)
        elif path.is_dir():
            files += (inside := _images_in(path))
            if not inside:
                raise InputError(f"{path}: no images in this folder")
        elif glob.has_magic(text):
            # pathlib's own glob knows no absolute patterns.
            matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207
            files += (inside := [file for match in matches for file in _images_in(Path(match))])
            if not inside:
                raise InputError(f"{text}: no image matches this pattern")
        else:
            raise InputError(f"{path}: no such image")
    return list(dict.fromkeys(files))


def _images_in(path: Path) -> list[Path]:
    files = path.rglob("*") if path.is_dir() else [path]
    return sorted(file for file in files if named_as_image(file.name) and file.is_file())


def predict(
    params: Params, name: str | None, files: Sequence[Path], neighbours: int = 0
) -> dict[str, Any]:
    """What a trained head makes of images that are in no index; each is taken whole.

    Args:
        params: Settings; the base must be the one that the head's features came from.
        name: A trained head; None for the one best on validation.
        files: Images.
        neighbours: So many training images most like each, by the features the head reads.

    Returns:
        "head", "seeded" (whether stand-in weights had a part), and "images": file name to Answer;
        if asked for, "neighbours": file name to a
        list of "image_id", "class", "name" and "similarity", the most similar first.

    Raises:
        InputError: No such head, another base, a file that is no image.
        StoreError: Neighbours are asked for, and the store is absent or of another make.
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
    names = facts.get("classes", [])
    if len(names) <= max(head.classes_):
        raise InputError(
            f"{MODELS / name}: expected the names of its classes, got {len(names)} (an earlier "
            "version kept none); run `dvc repro`"
        )
    # Opened before the network starts, so that what is wrong with it is told at once.
    store = open_store(STORE, made_by) if neighbours else None
    blocks, layers = _features(base, files), facts["features"]
    views = [[blocks[view_name(k, view)] for k in layers] for view in range(base.views)]
    proba = head.predict_proba(*views)
    classes = [(int(label), names[label]) for label in head.classes_]
    seeded = params.base.seeded or facts["stand_in"]
    answer = {"head": name, "seeded": seeded, "images": _answers(files, proba, classes)}
    if store is not None:
        plain = {layer: blocks[layer] for layer in layers}
        answer["neighbours"] = _neighbours(store, names, files, plain, neighbours)
    return answer


def classify(params: Params, files: Sequence[Path]) -> dict[str, Any]:
    """ImageNet's classes through fc8: whether the base itself is sound.

    Returns:
        "weights" ("seeded" or "file"), and "images": file name to Answer.

    Raises:
        InputError: Weights without fc8, a file that is no image.
    """
    plain = {"layers": ["fc8"], "contrast": None, "shift": 0}
    settings = params.base.model_copy(update=plain)
    base = load_base(params.model_copy(update={"base": settings}))
    scores = np.asarray(softmax(_features(base, files)["fc8"], axis=1), np.float32)
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
        InputError: None is trained, or it is not known how well one did.
    """
    accuracy = {}
    for name in params.heads:
        if not (MODELS / name / "head.json").is_file():
            continue
        path = TRAINING / f"{name}.json"
        try:
            accuracy[name] = float(json.loads(path.read_text(encoding="utf-8"))["val_accuracy"])
        except FileNotFoundError as error:
            raise InputError(
                f"{path}: missing, so the head best on validation is unknown; run `dvc repro`, "
                "or choose one with --head"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: expected a JSON object with val_accuracy, a number, got {error!r}; "
                "run `dvc repro`, or choose a head with --head"
            ) from error
    if not accuracy:
        raise InputError(f"{MODELS}: no trained head; run `dvc repro`")
    return max(accuracy, key=lambda name: accuracy[name])


def page(answer: Mapping[str, Any], files: Sequence[Path], said: Sequence[str]) -> str:
    """The answer of `predict` as an HTML page with the pictures in it.

    Args:
        answer: Of these files.
        files: Images.
        said: What to say above all; see `notices`.

    Raises:
        InputError: Neighbours are to be shown, and their thumbnails are absent or damaged.
    """
    found = answer.get("neighbours", {})
    jpeg = {}
    if found:
        with Thumbnails(THUMBNAILS) as thumbnails:
            ids = {entry["image_id"] for entries in found.values() for entry in entries}
            jpeg = {image_id: thumbnails.jpeg(image_id) for image_id in sorted(ids)}
    images = [
        Predicted(
            printable(str(file)),
            thumbnail(_image(file), SHOWN_PX),
            [(entry["name"], entry["probability"]) for entry in answer["images"][str(file)]],
            [
                Neighbour(
                    entry["image_id"], entry["name"], entry["similarity"], jpeg[entry["image_id"]]
                )
                for entry in found.get(str(file), [])
            ],
        )
        for file in files
    ]
    return render_predicted(answer["head"], images, said)


def notices(params: Params, seeded: bool) -> list[str]:
    """What a person must know before believing a prediction."""
    found = [SEEDED] if seeded else []
    if params.base.crop == "roi":
        found.append("The head was trained on regions of interest; images here are taken whole.")
    return found


def _image(file: Path) -> Image.Image:
    return decode(file.read_bytes(), printable(str(file)))


def _features(base: FrozenBase, files: Sequence[Path]) -> dict[str, NDArray[np.float32]]:
    """What the store would hold of these images: a layer in one view to (N, D)."""
    # All of them first: a file that is no image should be told before the network starts.
    images = [base.eye.seen(_image(file)) for file in files]
    batches = list(base.forward(images))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _neighbours(
    store: FeatureStore,
    names: Sequence[str],
    files: Sequence[Path],
    blocks: Mapping[str, NDArray[np.float32]],
    k: int,
) -> dict[str, Answer]:
    training = store.column("split") == "train"
    rows, similarity = most_similar(
        store, blocks, training, k, lambda shards: bar(shards, desc="neighbours", unit=" shards")
    )
    image_id, label = store.column("image_id"), store.column("label")
    if label.max() >= len(names):
        raise StoreError(
            f"{store.address}: has class {label.max()}, but the head knows {len(names)} classes; "
            "run `dvc repro`"
        )
    return {
        str(file): [
            {
                "image_id": str(image_id[row]),
                "class": int(label[row]),
                "name": names[label[row]],
                "similarity": float(cosine),
            }
            for row, cosine in zip(found, cosines, strict=True)
        ]
        for file, found, cosines in zip(files, rows, similarity, strict=True)
    }


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
