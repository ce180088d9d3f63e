"""Which settings of a head: every candidate on tracks it was not trained on.

N rows of the training set, M of them held out in a fold, C classes of the whole problem.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np

from pipeline.head import Head, Labels, Watch, fit_temperature, mean_scores, nll_of
from pipeline.saved import settings_of
from pipeline.scaling import Floats, Scaling
from pipeline.splits import Fold
from pipeline.streaming import Streamed, by_parts

# Rows are arrays; or `Streamed`, where the head streams.
Scaled = tuple[Scaling, Any, list[Any]]


@dataclass
class Data:
    """What heads are trained on.

    Attributes:
        blocks: (N, D) features, one array a layer; or something of that shape that gives rows when
            it is indexed by their numbers.
        label: (N,) int64.
        n_classes: C.
        others: Further views of the same N images, to score held-out rows by; each as ``blocks``.
        part: (N,) int64; of heads that stream, rows of equal part are read at once. None: all are.
    """

    blocks: Sequence[Any]
    label: Labels
    n_classes: int
    others: Sequence[Sequence[Any]] = ()
    part: Labels | None = None
    _scaled: tuple[str, Scaled] | None = field(default=None, repr=False)

    def drop_scaled(self) -> None:
        """Make room: two of what `scaled` keeps may not fit where one does."""
        self._scaled = None

    def training(self, head: Head, rows: Labels | None = None) -> tuple[Scaling, Any]:
        """A scaling learnt from these rows, or all, and the rows as the head wants them."""
        scaling = Scaling(head.scaling, head.components)
        if not head.streams:
            return scaling, scaling.fit_transform(_rows(self.blocks, rows))
        every = np.arange(len(self.label))
        x = self._streamed(scaling, self.blocks, every if rows is None else rows)
        scaling.fit(x.stored)
        return scaling, x

    def _streamed(self, scaling: Scaling, blocks: Sequence[Any], rows: Labels) -> Streamed:
        part = np.zeros_like(rows) if self.part is None else self.part[rows]
        return Streamed(scaling, blocks, rows, part)

    def scaled(self, head: Head, train: Labels, val: Labels) -> Scaled:
        """Features of a fold as a head wants them.

        The last answer is kept, views and all, since candidates that share it follow one another,
        and reading and scaling takes longer than most of them.

        Returns:
            The scaling, training rows, and held-out rows in each view.
        """
        key = joblib.hash((head.scaling, head.components, head.streams, train, val))
        if self._scaled is None or self._scaled[0] != key:
            self.drop_scaled()
            scaling, x = self.training(head, train)
            views = [
                self._streamed(scaling, view, val)
                if head.streams
                else scaling.transform(_rows(view, val))
                for view in (self.blocks, *self.others)
            ]
            self._scaled = key, (scaling, x, views)
        return self._scaled[1]


def _rows(blocks: Sequence[Any], rows: Labels | None) -> list[Any]:
    return [block[slice(None) if rows is None else rows] for block in blocks]


@dataclass(frozen=True)
class Outcome:
    """One candidate on one fold.

    Attributes:
        accuracy: On held-out rows, 0..1.
        nll: Mean negative log-likelihood there, at the temperature that suits it best, nats.
        scores: (M, C) float32, before temperature; -inf for a class that was not trained on.
        history: See `pipeline.head.Head.history_`.
        seconds: Spent on it, its share of shared work included.
    """

    accuracy: float
    nll: float
    scores: Floats
    history: list[dict[str, float]]
    seconds: float


@dataclass(frozen=True)
class Job:
    """Candidates that one fit can serve, on one fold; see `trial`."""

    heads: Sequence[Head]
    train: Labels
    val: Labels


# jobs, data, watch -> for each job, in their order, an outcome for each of its heads
RunTrials = Callable[[Sequence[Job], Data, Watch], Iterator[list[Outcome]]]


def in_turn(jobs: Sequence[Job], data: Data, watch: Watch) -> Iterator[list[Outcome]]:
    """Run trials one after the other, each when its outcomes are asked for."""
    return (trial(job, data, watch) for job in jobs)


def trial(job: Job, data: Data, watch: Watch) -> list[Outcome]:
    """Train heads that differ in their ``path`` alone on one part of the rows; score on another.

    Args:
        job: Heads, left as they are; rows to train on, and rows to score on.
        data: Features and labels of all rows.
        watch: Told how far it is.

    Returns:
        One outcome a head, in their order.
    """
    start = time.perf_counter()
    fresh, train, val = [head.copy() for head in job.heads], job.train, job.val
    scaling, x, views = data.scaled(fresh[0], train, val)
    truth = data.label[val]
    measured = {}
    for head in Head.fit_path(fresh, scaling, x, data.label[train], (views[0], truth), watch):
        found = mean_scores(by_parts(head.scaled_scores, view) for view in views)
        measured[id(head)] = all_classes(head, found, data.n_classes), head.history_
    seconds = (time.perf_counter() - start) / len(fresh)
    outcomes = []
    for head in fresh:
        scores, history = measured[id(head)]
        accuracy = float(np.mean(scores.argmax(axis=1) == truth))
        nll = nll_of(scores, truth, fit_temperature(scores, truth))
        outcomes.append(Outcome(accuracy, nll, scores, history, seconds))
    return outcomes


def all_classes(head: Head, values: Floats, n_classes: int, missing: float = -np.inf) -> Floats:
    """(N, known classes) to (N, C): what a head does not know, it gives ``missing``."""
    if values.shape[1] != len(head.classes_):
        raise ValueError(
            f"{type(head).__name__} gives {values.shape[1]} scores for {len(head.classes_)} "
            "classes; expected one for each"
        )
    out = np.full((len(values), n_classes), missing, np.float32)
    out[:, head.classes_] = values
    return out


@dataclass(frozen=True)
class Selection:
    """What a sweep found.

    Attributes:
        best: The candidate with the highest mean accuracy over folds; the first of equals.
        outcomes: For each candidate, an outcome a fold.
        chosen: Which candidate is the best.
        rows: (M,) all rows held out in any fold.
        scores: (M, C) the best one's scores of them, each by a model that never saw their track.
        temperature: Fitted on these.
    """

    best: Head
    outcomes: list[list[Outcome]]
    chosen: int
    rows: Labels
    scores: Floats
    temperature: float


def alike(candidates: Sequence[Head]) -> list[list[int]]:
    """Places of candidates that one fit can serve: all settings equal but ``path``.

    Those that want the same scaling follow one another, so that it is done once.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for place, head in enumerate(candidates):
        rest = {k: v for k, v in settings_of(head).items() if k != head.path}
        groups.setdefault((repr((head.scaling, head.components)), repr(rest)), []).append(place)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]


def select(
    candidates: Sequence[Head],
    folds: Sequence[Fold],
    data: Data,
    run: RunTrials = in_turn,
    told: Callable[[int, Outcome], Any] = lambda place, outcome: None,
    watch: Watch = lambda text: None,
) -> Selection:
    """Try every candidate on every fold.

    Args:
        candidates: At least one; of one kind.
        folds: Training and held-out rows.
        data: Features and labels.
        run: `in_turn`, or something that remembers what it gave, or has others do it.
        told: Called with a candidate's place and each outcome.
        watch: Told how far a long fit is.
    """
    outcomes: list[list[Outcome]] = [[] for _ in candidates]
    groups = alike(candidates)
    jobs = [Job([candidates[k] for k in places], *fold) for fold in folds for places in groups]
    for places, found in zip(groups * len(folds), run(jobs, data, watch), strict=True):
        for place, outcome in zip(places, found, strict=True):
            outcomes[place].append(outcome)
            told(place, outcome)
    means = [np.mean([outcome.accuracy for outcome in mine]) for mine in outcomes]
    chosen = int(np.argmax(means))
    rows = np.concatenate([val for _, val in folds])
    scores = np.concatenate([outcome.scores for outcome in outcomes[chosen]])
    return Selection(
        best=candidates[chosen],
        outcomes=outcomes,
        chosen=chosen,
        rows=rows,
        scores=scores,
        temperature=fit_temperature(scores, data.label[rows]),
    )


def refit(found: Selection, seeds: Sequence[int], data: Data, watch: Watch) -> list[Head]:
    """The best candidate on all training rows, once a seed; once where there are no seeds."""
    data.drop_scaled()
    scaling, x = data.training(found.best)
    heads: list[Head] = []
    for number, seed in enumerate(seeds or [0], start=1):
        head = found.best.copy()
        if seeds:
            head.seed = seed  # type: ignore[attr-defined]
        watch(f"refit {number} of {len(seeds) or 1}")
        heads += Head.fit_path([head], scaling, x, data.label, watch=watch)
        head.temperature_ = found.temperature
    return heads
