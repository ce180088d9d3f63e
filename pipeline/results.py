"""What a comparison consists of: made by ``compare``, shown by the report. Shares are 0..1."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import stdev

from pipeline.comparison import Pair
from pipeline.scores import Score, Share
from pipeline.words import SIGNS, Words


@dataclass(frozen=True)
class Trial:
    """One combination of settings, as the sweep found it.

    Attributes:
        settings: The searched settings and their values; empty where nothing was searched.
        accuracy: On validation, mean over folds.
        nll: Mean negative log-likelihood on validation, nats, at the temperature that suits it
            best.
        chosen: Whether it is the one that was chosen.
    """

    settings: dict[str, object]
    accuracy: float
    nll: float
    chosen: bool


@dataclass(frozen=True)
class Leak:
    """The same settings validated in two ways, beside the truth.

    Attributes:
        frames: Accuracy on frames held out at random: their neighbours were trained on.
        tracks: Accuracy on whole tracks held out.
        test: Accuracy on the test images.
    """

    frames: Share
    tracks: Share
    test: Share


@dataclass(frozen=True)
class HeadResult:
    """One head of the comparison.

    Attributes:
        name: Its block in params.yaml; any text.
        kind: What it is, e.g. "softmax".
        features: The cached layers it reads.
        settings: Its settings as chosen, by name.
        temperature: What its scores are divided by, fitted on validation; above 1 it was
            overconfident.
        seconds: Time of the whole training stage.
        validation: Score on validation rows, by models that never saw their tracks; the interval
            is over tracks. Settings were chosen on the same rows, so it flatters a little.
        test: Score on test rows, by the model refitted on all training tracks; the interval
            is over test tracks if these are known, else it takes images for independent.
        seeds: Test accuracy of the refits, one a seed; the first is ``test``. One entry for a head
            that draws nothing at random.
        sweep: Every combination tried.
        history: Learning curve of the chosen settings on validation, one entry an epoch: "epoch",
            "loss", "accuracy", "val_accuracy"; empty for a head without epochs.
        families: Test accuracy by family of classes.
        sizes: Test accuracy by size of the image: "under 30 px" and so on.
        curve: Validation accuracy by number of training tracks; empty where not asked for.
        leak: None where not asked for, or where no track has two images, so that nothing leaks.
    """

    name: str
    kind: str
    features: list[str]
    settings: dict[str, object]
    temperature: float
    seconds: float
    validation: Score
    test: Score
    seeds: list[float]
    sweep: list[Trial]
    history: list[dict[str, float]]
    families: dict[str, Share]
    sizes: dict[str, Share]
    curve: dict[int, Share] = field(default_factory=dict)
    leak: Leak | None = None

    @property
    def seed_deviation(self) -> float | None:
        """Standard deviation of ``seeds``; None for fewer than two."""
        return stdev(self.seeds) if len(self.seeds) > 1 else None


def by_layers(heads: Sequence[HeadResult]) -> dict[str, dict[str, HeadResult]]:
    """Kind of head to what it reads to the head that does: which layers serve a kind best.

    Where several heads of one kind read the same, in whatever order, it is the one best on
    validation. Nothing where all heads read the same.
    """
    names: dict[frozenset[str], str] = {}
    for head in heads:
        names.setdefault(frozenset(head.features), "+".join(head.features))
    found: dict[str, dict[str, HeadResult]] = {}
    for head in sorted(heads, key=lambda head: -head.validation.accuracy):
        found.setdefault(head.kind, {}).setdefault(names[frozenset(head.features)], head)
    return {
        kind: {name: found[kind][name] for name in names.values() if name in found[kind]}
        for kind in dict.fromkeys(head.kind for head in heads)
        if len(names) > 1
    }


@dataclass(frozen=True)
class Mistake:
    """One test image that one head gets wrong."""

    head: str
    image_id: str
    label: int
    predicted: int
    probability: float  # of the predicted class


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from.

    Attributes:
        facts: Pairs of term and description, in the order shown.
        notice: A warning shown above all numbers; empty for none.
        confidence: Of the intervals.
        throughput: The base pass: "rows", "forwarded", "seconds", "images_per_second", "device",
            "time"; as `extract` writes them.
        words: What to call classes, tracks and frames.
        caution: Of intervals over too few tracks; empty where there are enough.
    """

    facts: list[tuple[str, str]]
    notice: str
    confidence: float
    throughput: dict[str, object]
    words: Words = SIGNS
    caution: str = ""


@dataclass(frozen=True)
class Comparison:
    """Everything the report shows.

    Attributes:
        heads: In the order of params.yaml.
        pairs: Every two heads.
        class_names: C names, by class number.
        families: Class numbers by family, in the order to draw them.
        mistakes: Per head its most confident mistakes on test, at most so many that the page
            stays a few megabytes; ``omitted`` says how many more there are.
        omitted: Head to the number of its mistakes that are not listed.
        pictures: image_id to a small JPEG, for each image in ``mistakes``.
        provenance: Where all this comes from.
    """

    heads: list[HeadResult]
    pairs: list[Pair]
    class_names: list[str]
    families: dict[str, list[int]]
    mistakes: list[Mistake]
    omitted: dict[str, int]
    pictures: dict[str, bytes]
    provenance: Provenance
