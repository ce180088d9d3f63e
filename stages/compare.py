"""``compare``: every head on the same rows; the only stage that reads test labels."""

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.classes import Classes, read_classes
from pipeline.comparison import Pair, compare_pairs
from pipeline.errors import InputError
from pipeline.index import read_index
from pipeline.report import render
from pipeline.results import Comparison, HeadResult, Mistake, Provenance, Trial
from pipeline.scores import Score, by_group, few_tracks, score
from pipeline.table import comparison_text
from pipeline.thumbnails import Thumbnails
from pipeline.views import view_count
from pipeline.words import WORDS, Words
from stages.answers import Answers, no_strays, same_rows, studied
from stages.console import run, say
from stages.files import read_json, write_json, write_table, write_text
from stages.params import Params, load_params
from stages.places import AUDIT, CLASSES, EXTRACTED, INDEX, RESULTS, THUMBNAILS

LISTED_MISTAKES = 500  # of each head, the most confident: a few megabytes of page in all
SIZES_PX = (30, 40, 50, 70, 100)  # of GTSRB; other images are divided in five
HEADLINE = (
    "accuracy", "accuracy_low", "accuracy_high", "top5", "macro_recall", "nll", "ece", "correct",
    "rows",
)  # fmt: skip


def head_result(params: Params, classes: Classes, name: str, answers: Answers) -> HeadResult:
    """Score one head."""
    confidence, training = params.compare.confidence, answers.training
    truth, right = answers.test["label"].to_numpy(), answers.test_right.to_numpy()
    track = answers.test["track"].to_numpy()
    family = np.array([_family(label, classes) for label in truth])
    size, sizes = _sizes(answers.test[["width", "height"]].max(axis=1).to_numpy(), classes)
    result = HeadResult(
        name=name,
        kind=training["kind"],
        features=training["features"],
        settings=training["settings"],
        temperature=training["temperature"],
        seconds=training["seconds"],
        validation=score(
            answers.validation["label"].to_numpy(),
            answers.validation_proba,
            confidence=confidence,
            track=answers.validation["track"].to_numpy(),
        ),
        test=score(
            truth,
            answers.test_proba[0],
            confidence=confidence,
            track=track if (track >= 0).all() else None,
        ),
        seeds=[float(np.mean(proba.argmax(axis=1) == truth)) for proba in answers.test_proba],
        sweep=[Trial(**entry) for entry in training["sweep"]],
        history=training["history"],
        families=by_group(right, family, list(classes.families), confidence),
        sizes=by_group(right, size, sizes, confidence),
    )
    return studied(result, confidence) if name in params.study.heads else result


def metrics(heads: list[HeadResult]) -> dict[str, Any]:
    """The headline figures, as ``dvc metrics show`` lists them."""

    def figures(scored: Score) -> dict[str, Any]:
        return {key: value for key, value in asdict(scored).items() if key in HEADLINE}

    test = {head.name: figures(head.test) for head in heads}
    for head in heads:
        if head.seed_deviation is not None:
            test[head.name]["seed_deviation"] = head.seed_deviation
    return {"test": test, "validation": {head.name: figures(head.validation) for head in heads}}


def mistakes_of(name: str, answers: Answers) -> list[Mistake]:
    """Every test image that a head gets wrong, the most confident first."""
    proba = answers.test_proba[0]
    predicted, top = proba.argmax(axis=1), proba.max(axis=1)
    wrong = np.flatnonzero(~answers.test_right.to_numpy())
    ids, label = answers.test.index.to_numpy(), answers.test["label"].to_numpy()
    return [
        Mistake(name, str(ids[k]), int(label[k]), int(predicted[k]), float(top[k]))
        for k in wrong[np.argsort(-top[wrong], kind="stable")]
    ]


def provenance(
    params: Params, classes: Classes, index: pd.DataFrame, fingerprint: str, stand_ins: list[str]
) -> Provenance:
    """What the report says of where its numbers come from.

    Raises:
        InputError: The heads were trained on other features than were extracted last.
    """
    audit = read_json(AUDIT)
    summary = read_json(EXTRACTED)
    if summary["fingerprint"] != fingerprint:
        raise InputError(
            f"results/training: heads of features {fingerprint[:16]}, but "
            f"{summary['fingerprint'][:16]} were extracted; run `dvc repro`"
        )
    made_by, images = summary["made_by"], audit["images"]
    seeded = made_by["weights"] == "seeded"
    words, tested = WORDS[classes.dataset], index["track"][index["split"] == "test"]
    test_tracks = f"{tested.nunique():,} in test" if tested.min() >= 0 else ""
    facts = [
        ("Images", f"{images['train']:,} training, {images['test']:,} test"),
        (
            f"{words.track.capitalize()}s",
            f"{audit['tracks']['count']:,} in training; "
            + (test_tracks or "unpublished for the test set"),
        ),
        ("In both sets", f"{len(audit['exact_duplicates']['across'])} images, pixel for pixel"),
        ("Network", f"AlexNet, {made_by['variant']}, {made_by['precision']}"),
        ("Weights", "seeded (random)" if seeded else f"sha256 {made_by['weights_sha256'][:16]}…"),
        ("Layers cached", ", ".join(f"{k} ({summary['layers'][k]:,})" for k in made_by["layers"])),
        ("Crop", made_by["crop"]),
        ("Contrast", _contrast(made_by["contrast"])),
        ("Views", _views(made_by["shift"])),
        ("Device", f"{summary['device']}, {summary['backend']}"),
        ("Features", fingerprint),
    ]
    nothing = "and say nothing about the published network."
    notice = ""
    if seeded:
        notice = (
            "The base has seeded (random) weights, as stand-ins: these figures show that the "
            f"pipeline works {nothing}"
        )
    elif stand_ins:
        notice = (
            f"{', '.join(stand_ins)} began with seeded (random) fc6 and fc7, as stand-ins for "
            f"AlexNet's: its figures show what training from there gives {nothing}"
        )
    return Provenance(facts, notice, params.compare.confidence, summary, words)


def caution_of(validation: NDArray[np.int64], test: NDArray[np.int64], words: Words) -> str:
    """What to say of intervals over too few tracks.

    Args:
        validation: (M,) tracks of the rows held out.
        test: (N,) tracks of the test rows; -1 where these are unknown.
        words: What to call a track.
    """
    few = {"validation": few_tracks(validation)}
    if (test >= 0).all():
        few["test"] = few_tracks(test)
    return " ".join(
        f"The {part} interval is over {count} {words.track}s: too few, it is too short to be "
        "believed."
        for part, count in few.items()
        if count
    )


def write_tables(
    heads: list[HeadResult],
    pairs: list[Pair],
    answers: dict[str, Answers],
    names: Sequence[str],
) -> None:
    """What other programs read: predictions, confusions, recalls, pairs."""
    for name, mine in answers.items():
        tables = [
            pd.DataFrame(
                {
                    "image_id": rows.index,
                    "split": part,
                    "label": rows["label"].to_numpy(),
                    "predicted": proba.argmax(axis=1),
                    "probability": proba.max(axis=1).round(6),
                }
            )
            for part, rows, proba in (
                ("validation", mine.validation, mine.validation_proba),
                ("test", mine.test, mine.test_proba[0]),
            )
        ]
        write_table(RESULTS / "predictions" / f"{name}.csv", pd.concat(tables))
        named = tables[1][["label", "predicted"]].map(names.__getitem__)
        write_table(RESULTS / "confusion" / f"{name}.csv", named)
    recall = [
        {"head": head.name, "class": names[c], "recall": part}
        for head in heads
        for c, part in enumerate(head.test.recall)
    ]
    write_table(RESULTS / "recall.csv", pd.DataFrame(recall))
    columns = [entry.name for entry in fields(Pair)]
    write_table(RESULTS / "pairs.csv", pd.DataFrame(list(map(asdict, pairs)), columns=columns))


def _family(label: int, classes: Classes) -> str:
    return next((name for name, members in classes.families.items() if label in members), "")


def _contrast(equalised: dict[str, Any] | None) -> str:
    if equalised is None:
        return "as it is"
    return f"equalised (CLAHE, clip {equalised['clip']:g}, {equalised['tiles']}² tiles)"


def _views(shift: float) -> str:
    count = view_count(shift)
    return f"{count}, shifted by {100 * shift:g} %; scores averaged" if count > 1 else "1"


def _sizes(side_px: NDArray[np.int64], classes: Classes) -> tuple[NDArray[np.str_], list[str]]:
    """The size of each image, by name, and all names by rising size."""
    bounds = np.array(SIZES_PX)
    if classes.dataset != "gtsrb":
        bounds = np.unique(np.quantile(side_px, [0.2, 0.4, 0.6, 0.8]).astype(int))
    low, high = bounds[:-1].tolist(), (bounds[1:] - 1).tolist()
    between = [f"{a} to {b} px" if a < b else f"{a} px" for a, b in zip(low, high, strict=True)]
    names = [f"under {bounds[0]} px", *between, f"{bounds[-1]} px and over"]
    return np.array(names)[np.digitize(side_px, bounds)], names


def main() -> None:
    """Score every head in params.yaml; write metrics, tables and the report."""
    params = load_params()
    no_strays(params)
    classes, index = read_classes(CLASSES), read_index(INDEX).set_index("image_id")
    answers = {name: Answers(name, index) for name in params.heads}
    same_rows(answers)
    fingerprints = {mine.training["fingerprint"] for mine in answers.values()}
    if len(fingerprints) > 1:
        raise InputError("results/training: heads of different features; run `dvc repro`")
    stand_ins = [name for name, mine in answers.items() if mine.training["stand_in"]]
    where = provenance(params, classes, index, fingerprints.pop(), stand_ins)
    first = next(iter(answers.values()))
    held_out, tested = (rows["track"].to_numpy() for rows in (first.validation, first.test))
    where = replace(where, caution=caution_of(held_out, tested, where.words))
    heads = [head_result(params, classes, name, mine) for name, mine in answers.items()]
    pairs = compare_pairs(
        {name: mine.test_right.to_numpy() for name, mine in answers.items()},
        {name: mine.validation_right.to_numpy() for name, mine in answers.items()},
        held_out,
        confidence=params.compare.confidence,
    )
    write_tables(heads, pairs, answers, classes.names)
    write_json(RESULTS / "metrics.json", metrics(heads))
    mistakes = {name: mistakes_of(name, mine) for name, mine in answers.items()}
    listed = [entry for found in mistakes.values() for entry in found[:LISTED_MISTAKES]]
    with Thumbnails(THUMBNAILS) as thumbnails:
        pictures = {entry.image_id: thumbnails.jpeg(entry.image_id) for entry in listed}
    page = render(
        Comparison(
            heads=heads,
            pairs=pairs,
            class_names=list(classes.names),
            families=classes.families,
            mistakes=listed,
            omitted={k: max(0, len(found) - LISTED_MISTAKES) for k, found in mistakes.items()},
            pictures=pictures,
            provenance=where,
        )
    )
    write_text(RESULTS / "report.html", page)
    text = comparison_text(heads, pairs, where)
    write_text(RESULTS / "comparison.txt", text)
    say(text)
    say(f"compare: report -> {RESULTS / 'report.html'}")


if __name__ == "__main__":
    run(main)
