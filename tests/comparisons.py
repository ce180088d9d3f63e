"""Comparisons to report on: random, but as plausible as real ones, with real scores of them."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.classes import CLASS_NAMES, FAMILIES
from pipeline.comparison import compare_pairs
from pipeline.results import Comparison, HeadResult, Leak, Mistake, Provenance, Trial
from pipeline.scores import Score, score, share

KINDS = ("softmax", "mlp", "logistic", "ridge", "svm", "lda", "centroid", "cosine", "knn")
SIZES = ("under 30 px", "30 to 44 px", "45 to 69 px", "70 px and more")
PROVENANCE = Provenance(
    facts=[("Device", "abacus <1>")],
    notice="",
    confidence=0.95,
    throughput={
        "rows": 51839,
        "forwarded": 39209,
        "seconds": 252.4,
        "images_per_second": 155.3,
        "device": "CPU",
        "time": {"starting": 2.4, "network": 240.0, "readers_reading": 31.0},
    },
)


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (48, 44)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG")
    return file.getvalue()


def one_hot(label: NDArray[np.int64], predicted: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Probabilities that put 0.8 on a prediction."""
    proba = np.full((len(label), n), 0.2 / max(n - 1, 1))
    proba[np.arange(len(label)), predicted] = 0.8 if n > 1 else 1.0
    return proba


def from_confusion(confusion: list[list[int]]) -> Score:
    """The score of a head that makes just these confusions."""
    counts = np.array(confusion)
    true, predicted = np.nonzero(counts)
    times = counts[true, predicted]
    label = np.repeat(true, times)
    return score(label, one_hot(label, np.repeat(predicted, times), len(counts)))


def head_result(name: str, validation: Score, test: Score, **changes: Any) -> HeadResult:
    """One head's results, with a learning curve and a small sweep."""
    right = np.arange(100) < 90
    result = HeadResult(
        name=name,
        kind="softmax",
        features=["fc6", "fc7"],
        settings={"learning_rate": 0.0005, "hidden": None},
        temperature=1.31,
        seconds=75.2,
        validation=validation,
        test=test,
        seeds=[test.accuracy],
        sweep=[
            Trial({"learning_rate": rate, "hidden": None}, accuracy, 0.41, chosen=rate == 0.0005)
            for rate, accuracy in ((0.00005, 0.81), (0.0005, 0.90), (0.005, 0.62))
        ],
        history=[
            {"epoch": e, "loss": 1 / e, "accuracy": 1 - 0.5 / e, "val_accuracy": 0.9}
            for e in (1, 2, 3)
        ],
        families={"Unique": share(right)},
        sizes={SIZES[0]: share(right[::2])},
    )
    return replace(result, **changes)


def comparison(heads: list[HeadResult], names: list[str], **changes: Any) -> Comparison:
    """A comparison of heads, without pairs or mistakes."""
    result = Comparison(
        heads=heads,
        pairs=[],
        class_names=names,
        families={"first half": list(range(len(names) // 2))},
        mistakes=[],
        omitted={},
        pictures={},
        provenance=PROVENANCE,
    )
    return replace(result, **changes)


def probabilities(
    rng: np.random.Generator, label: NDArray[np.int64], skill: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """Probabilities right about as often as ``skill`` says; mistakes are between neighbours."""
    predicted = np.where(
        rng.random(len(label)) < skill,
        label,
        (label + rng.choice([1, 1, 1, 2, -1, 5, 9], len(label))) % n,
    )
    score_of = rng.normal(0, 1, (len(label), n))
    score_of[np.arange(len(label)), predicted] += 3 + rng.gamma(4, 1.2, len(label)) * skill
    proba = np.exp(score_of)
    return proba / proba.sum(axis=1, keepdims=True)


def history_of(final: float, epochs: int) -> list[dict[str, float]]:
    return [
        {
            "epoch": float(e),
            "loss": 0.05 + 3 / e,
            "accuracy": min(1.0, final + 0.05 - 0.5 / e),
            "val_accuracy": final - 0.4 / e,
        }
        for e in range(1, epochs + 1)
    ]


def sweep_of(rng: np.random.Generator, k: int, final: float) -> list[Trial]:
    """Of one to forty trials, over none to four settings."""
    n = (1, 12, 40, 5, 9, 3, 24, 2)[k % 8]
    settings: list[dict[str, object]] = []
    for t in range(n):
        drawn: dict[str, object] = {"C": 10.0 ** (t % 7 - 3)}
        if k % 3 == 1:
            drawn |= {"hidden": [256, 512, 1024][t % 3], "dropout": round(0.1 * (t % 5), 1)}
        if k % 3 == 2:
            drawn = {
                "learning_rate": float(f"{10 ** rng.uniform(-5, -2):.3g}"),
                "weight_decay": float(f"{10 ** rng.uniform(-6, -1):.3g}"),
                "layers": [["fc7"], ["fc6", "fc7"], ["pool5", "fc6", "fc7"]][t % 3],
                "standardise": t % 2 == 0,
            }
        settings.append(drawn if n > 1 else {})
    accuracy = final - rng.gamma(1.2, 0.02, n)
    return [
        Trial(setting, float(a), float(1 - a) * 4, chosen=t == int(accuracy.argmax()))
        for t, (setting, a) in enumerate(zip(settings, accuracy, strict=True))
    ]


def random_comparison(
    n_heads: int = 3,
    rows: int = 1200,
    *,
    names: tuple[str, ...] = CLASS_NAMES,
    listed: int = 400,
    skill: float = 0.9,
    seed: int = 0,
) -> Comparison:
    """Heads of rising skill over GTSRB's classes, each with everything the report can show.

    Args:
        n_heads: Their number.
        rows: Test images, and half as many validation images.
        names: Of the classes.
        listed: Mistakes to list a head; the others count as omitted.
        skill: About the best head's accuracy.
        seed: Of everything drawn.
    """
    rng = np.random.default_rng(seed)
    n = len(names)
    label, val_label = rng.integers(0, n, rows), np.sort(rng.integers(0, n, rows // 2))
    track = np.arange(len(val_label)) // 10
    image_size = rng.integers(0, len(SIZES), rows)
    hardness = rng.beta(1, 6, rows) + 0.15 * (image_size == 0)
    family_of = {c: name for name, members in FAMILIES.items() for c in members}
    family = np.array([family_of.get(int(c), "other") for c in label])
    heads, mistakes, omitted = [], [], {}
    right, val_right = {}, {}
    for k in range(n_heads):
        name = KINDS[k % len(KINDS)] + ("" if k < len(KINDS) else f" {k}")
        level = np.clip(skill + 0.1 - 0.03 * ((k * 5) % 7) - hardness, 0, 1)
        proba = probabilities(rng, label, level, n)
        val_proba = probabilities(rng, val_label, np.full(len(val_label), level.mean()), n)
        predicted = proba.argmax(axis=1)
        right[name], val_right[name] = predicted == label, val_proba.argmax(axis=1) == val_label
        test = score(label, proba)
        wrong = np.flatnonzero(~right[name])
        wrong = wrong[np.argsort(-proba[wrong].max(axis=1))]
        omitted[name] = max(0, len(wrong) - listed)
        mistakes += [
            Mistake(name, f"test/{row:05d}", int(label[row]), int(predicted[row]), float(p))
            for row, p in ((row, proba[row].max()) for row in wrong[:listed])
        ]
        final = test.accuracy
        more = np.arange(1000)
        heads.append(
            head_result(
                name,
                score(val_label, val_proba, track=track),
                test,
                kind=KINDS[k % len(KINDS)],
                features=["fc7"] if k % 2 else ["fc6", "fc7"],
                settings={"C": 10.0, "hidden": [512, 256], "learning_rate": 3e-05, "seed": 0},
                temperature=0.8 + 0.2 * k,
                seconds=3.0 * 7**k,
                seeds=[final] if k % 2 else [final, final - 0.004, final + 0.003],
                sweep=sweep_of(rng, k, final),
                history=history_of(final, (100, 12, 1)[k % 3]) if k % 4 != 3 else [],
                families={f: share(right[name][family == f]) for f in FAMILIES if f in family},
                sizes={
                    s: share(right[name][image_size == i])
                    for i, s in enumerate(SIZES)
                    if i in image_size
                },
                curve={t: share(more < 1000 * (final - 8 / t)) for t in (50, 100, 200, 400, 980)}
                if k < 6
                else {},
                leak=Leak(
                    frames=share(more < 1000 * min(0.999, final + 0.09)),
                    tracks=share(more < 1000 * final),
                    test=share(right[name]),
                )
                if k < 4
                else None,
            )
        )
    pictures = {
        m.image_id: jpeg((40 + 5 * m.label, 90, 255 - 5 * m.label), (30 + m.label, 40))
        for m in mistakes
    }
    return Comparison(
        heads=heads,
        pairs=compare_pairs(right, val_right, track),
        class_names=list(names),
        families=FAMILIES if n == len(CLASS_NAMES) else {"first half": list(range(n // 2))},
        mistakes=mistakes,
        omitted=omitted,
        pictures=pictures,
        provenance=PROVENANCE,
    )
