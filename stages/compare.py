"""``compare``: every head on the same rows; the only stage that looks at test labels."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cache.store import FeatureStore, open_store
from pipeline.classes import CLASS_NAMES, FAMILIES
from pipeline.errors import InputError
from pipeline.heads import Head
from pipeline.report import HeadResult, Provenance, render
from pipeline.saved import load_head
from pipeline.scores import Score, score
from stages.console import run, say
from stages.files import write_json, write_table, write_text
from stages.params import Params, load_params, stated
from stages.rows import training_rows

STORE = Path("data/features.zarr")
MODELS = Path("models")
RESULTS = Path("results")
TRAINING = RESULTS / "training"
HEADLINE = ("accuracy", "accuracy_low", "accuracy_high", "macro_recall", "correct", "rows")


def predictions(
    store: FeatureStore, head: Head, layer: str, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A head's class and its probability for rows of the store, (n,) each."""
    parts = np.array_split(rows, max(1, len(rows) // store.layout.shard_rows))
    proba = np.concatenate([head.predict_proba(store.features(layer, part)) for part in parts])
    return head.classes_[proba.argmax(axis=1)], proba.max(axis=1)


def compare_head(
    params: Params, store: FeatureStore, name: str, rows: dict[str, NDArray[np.int64]]
) -> tuple[HeadResult, pd.DataFrame]:
    """Score one trained head, and list what it said of every row.

    Raises:
        InputError: No such trained head, or one trained on other features.
    """
    head, facts = load_head(MODELS / name)
    if facts["fingerprint"] != store.fingerprint:
        raise InputError(
            f"{MODELS / name}: trained on features {facts['fingerprint'][:16]}, the store holds "
            f"{store.fingerprint[:16]}; run `dvc repro`"
        )
    label, image_id = store.column("label"), store.column("image_id")
    scores: dict[str, Score] = {}
    said = []
    for part, numbers in rows.items():
        predicted, probability = predictions(store, head, facts["features"], numbers)
        scores[part] = score(label[numbers], predicted, len(CLASS_NAMES), params.compare.confidence)
        said.append(
            pd.DataFrame(
                {
                    "image_id": image_id[numbers],
                    "split": part,
                    "label": label[numbers],
                    "predicted": predicted,
                    "probability": probability.round(6),
                }
            )
        )
    training = json.loads((TRAINING / f"{name}.json").read_text())
    settings = {key: value for key, value in params.heads[name].items() if key != "kind"}
    result = HeadResult(
        name=name,
        kind=head.kind,
        features=facts["features"],
        scaling=head.scaling,
        settings=settings,
        chosen=head.chosen_,
        seconds=training["seconds"],
        validation=scores["validation"],
        test=scores["test"],
        history=head.history_,
    )
    return result, pd.concat(said)


def metrics(heads: list[HeadResult]) -> dict[str, Any]:
    """The headline figures, as ``dvc metrics show`` lists them."""
    return {
        part: {
            head.name: {key: value for key, value in asdict(result).items() if key in HEADLINE}
            for head in heads
            for result in [head.validation if part == "validation" else head.test]
        }
        for part in ("test", "validation")
    }


def table(heads: list[HeadResult], confidence: float) -> str:
    """The comparison as text, best on test first."""
    width = max(len("head"), *(len(head.name) for head in heads))
    columns = f"{'accuracy':>8}  {f'{100 * confidence:g} % interval':<15} {'recall':>7}"
    lines = [
        f"{'':{width}}  {'validation':<34} {'test':<34}".rstrip(),
        f"{'head':{width}}  {columns}   {columns}   chosen",
    ]
    for head in sorted(heads, key=lambda head: -head.test.accuracy):
        shares = (
            f"{100 * s.accuracy:8.2f}  {100 * s.accuracy_low:5.2f} to {100 * s.accuracy_high:5.2f}"
            f"{100 * s.macro_recall:10.2f}"
            for s in (head.validation, head.test)
        )
        lines.append(f"{head.name:{width}}  {'   '.join(shares)}   {head.chosen}")
    return "\n".join(lines)


def provenance(store: FeatureStore, confidence: float) -> Provenance:
    """What the report says of where its numbers come from."""
    audit = json.loads((RESULTS / "audit.json").read_text())
    summary = json.loads((RESULTS / "extract.json").read_text())
    made_by, images = store.made_by, audit["images"]
    seeded = made_by["weights"] == "seeded"
    facts = [
        ("Images", f"{images['train']:,} training, {images['test']:,} test"),
        ("Tracks", f"{audit['tracks']['count']:,} in training; unpublished for the test set"),
        ("In both sets", f"{len(audit['exact_duplicates']['across'])} images, pixel for pixel"),
        ("Network", f"AlexNet, {made_by['variant']}, {made_by['precision']}"),
        ("Weights", "seeded (random)" if seeded else f"sha256 {made_by['weights_sha256'][:16]}…"),
        ("Layers cached", ", ".join(f"{k} ({v:,})" for k, v in store.layout.layers.items())),
        ("Crop", made_by["crop"]),
        ("Last base pass", f"{summary['forwarded']:,} images in {summary['seconds']:g} s"),
        ("Device", f"{summary['device']}, {summary['backend']}"),
        ("Features", store.fingerprint),
    ]
    notice = (
        "The base has seeded (random) weights, as stand-ins: these figures show that the pipeline "
        "works and say nothing about the published network."
    )
    return Provenance(facts, notice if seeded else "", confidence)


def main() -> None:
    """Score every head in params.yaml; write metrics, predictions, plots and the report."""
    params = load_params()
    confidence = params.compare.confidence
    store = open_store(STORE, stated(params))
    _, val = training_rows(store, params)
    rows = {"validation": val, "test": np.flatnonzero(store.column("split") == "test")}
    if strays := sorted({path.name for path in MODELS.glob("*")} - set(params.heads)):
        raise InputError(
            f"{MODELS / strays[0]}: params.yaml has no such head; remove the folder, "
            f"{TRAINING / strays[0]}.json and results/history/{strays[0]}.csv, and run again"
        )
    heads = []
    for name in params.heads:
        result, said = compare_head(params, store, name, rows)
        heads.append(result)
        write_table(RESULTS / "predictions" / f"{name}.csv", said)
        tested = said[said["split"] == "test"]
        names = tested[["label", "predicted"]].map(CLASS_NAMES.__getitem__)
        write_table(RESULTS / "confusion" / f"{name}.csv", names)
    recall = [
        {"head": head.name, "class": CLASS_NAMES[c], "recall": share}
        for head in heads
        for c, share in enumerate(head.test.recall)
    ]
    write_table(RESULTS / "recall.csv", pd.DataFrame(recall))
    write_json(RESULTS / "metrics.json", metrics(heads))
    facts = provenance(store, confidence)
    page = render(heads, list(CLASS_NAMES), FAMILIES, facts)
    write_text(RESULTS / "report.html", page)
    lines = ["% of images; recall is the mean over classes", "", table(heads, confidence), ""]
    text = "\n".join([*lines, facts.notice, ""] if facts.notice else lines)
    write_text(RESULTS / "comparison.txt", text)
    say(text)
    say(f"compare: report -> {RESULTS / 'report.html'}")


if __name__ == "__main__":
    run(main)
