"""The contract of a head: what is trained on cached features, and compared.

scikit-learn's: hyper-parameters in, ``fit`` returns self, learned names end in ``_``. A head is one
class and one block in params.yaml; naming its kind in the class statement registers it.

Glossary: N rows, M validation rows, D features, C classes, H hidden units.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from pipeline.scaling import Blocks, Floats, Kind, Scaling

Labels = NDArray[np.int64]
Watch = Callable[[str], Any]  # told in a few words how far a long fit is

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]


def unwatched(_: str) -> None:
    """Nobody is watching."""


@dataclass(kw_only=True)
class Head(ABC):
    """A classifier of cached features.

    Attributes:
        scaling: See `pipeline.scaling.Scaling`.
        components: Likewise.
        classes_: (C,) the labels it was trained on, ascending; C counts these.
        temperature_: What scores are divided by before they become probabilities.
        history_: One entry an epoch: "epoch", "loss", "accuracy" and, where it was given
            validation rows, "val_loss" and "val_accuracy" (of their plain view), shares 0..1. Empty
            without epochs.
    """

    kinds: ClassVar[dict[str, "type[Head]"]] = {}
    kind: ClassVar[str]
    # The hyper-parameter of which one fit can serve many values for little more than one.
    path: ClassVar[str | None] = None

    scaling: Kind
    components: Count | None
    classes_: Labels = field(init=False, repr=False)
    scaling_: Scaling = field(init=False, repr=False)
    temperature_: float = field(init=False, repr=False, default=1.0)
    history_: list[dict[str, float]] = field(init=False, repr=False)

    # How settings from a file are checked: pydantic reads the annotations of the fields.
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)

    def __init_subclass__(cls, kind: str = "") -> None:
        """Register a kind of head."""
        if kind:
            cls.kind = kind
            Head.kinds[kind] = cls

    @property
    def streams(self) -> bool:
        """Whether it is trained on `pipeline.streaming.Streamed` rows, else on an array."""
        return False

    def copy(self) -> Self:
        """The same settings, to be fitted apart from this one."""
        return copy.copy(self)

    def fit(
        self,
        blocks: Blocks,
        y: Labels,
        validation: tuple[Blocks, Labels] | None = None,
        watch: Watch = unwatched,
    ) -> Self:
        """Train.

        Args:
            blocks: (N, D) training features as stored, one array a layer.
            y: (N,) labels.
            validation: Other rows; those with a label that is not in y are passed over. Only
                watched: nothing that is learned depends on them.
            watch: Told how far it is.
        """
        scaling = Scaling(self.scaling, self.components)
        x = scaling.fit_transform(blocks)
        held_out = (scaling.transform(validation[0]), validation[1]) if validation else None
        for _ in self.fit_path([self], scaling, x, y, held_out, watch):
            pass
        return self

    @staticmethod
    def fit_path(
        heads: "Sequence[Head]",
        scaling: Scaling,
        x: Floats,
        y: Labels,
        validation: tuple[Floats, Labels] | None = None,
        watch: Watch = unwatched,
    ) -> "Iterator[Head]":
        """Train heads that differ in their ``path`` alone, sharing the work that they share.

        Args:
            heads: One kind; all settings but ``path`` equal.
            scaling: Fitted, as these heads want it.
            x: (N, D) training features, scaled by it; `pipeline.streaming.Streamed` ones only if
                these heads stream.
            y: (N,) labels.
            validation: As for `fit`, but scaled.
            watch: As for `fit`.

        Yields:
            The same heads, each once it is fitted.
        """
        classes, y = np.unique(y, return_inverse=True)
        if validation is not None:
            seen, truth = validation
            known = np.isin(truth, classes)
            if not known.all():
                seen, truth = seen[known], truth[known]
            validation = (seen, np.searchsorted(classes, truth)) if len(truth) else None
        for head in heads:
            head.classes_, head.scaling_, head.history_ = classes, scaling, []
        yield from heads[0]._fit_path(heads, x, y, validation, watch)

    def _fit_path(
        self,
        heads: "Sequence[Head]",
        x: Floats,
        y: Labels,
        validation: tuple[Floats, Labels] | None,
        watch: Watch,
    ) -> "Iterator[Head]":
        for head in heads:
            head._fit(x, y, validation, watch)
            yield head

    @abstractmethod
    def _fit(
        self, x: Floats, y: Labels, validation: tuple[Floats, Labels] | None, watch: Watch
    ) -> None:
        """Learn from scaled features (N, D), left as they are, and labels 0..C-1."""

    @abstractmethod
    def scaled_scores(self, x: Floats) -> Floats:
        """(N, D) scaled features to (N, C) scores, whose softmax are probabilities."""

    def scores(self, blocks: Blocks) -> Floats:
        """(N, D) features as stored, one array a layer, to (N, C), columns as in classes_."""
        return self.scaled_scores(self.scaling_.transform(blocks))

    def predict_proba(self, *views: Blocks) -> Floats:
        """Features as stored, (N, D) for each layer, to (N, C) probabilities.

        Of several views of the same images, scores are averaged.
        """
        return probabilities(mean_scores(self.scores(view) for view in views), self.temperature_)

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything learned, as arrays."""
        scaling = {f"scaling_{k}": getattr(self.scaling_, k) for k in self.scaling_.learned}
        return {"classes": self.classes_, **scaling}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take what `state` gave.

        Raises:
            KeyError: An array is missing.
        """
        self.classes_ = state["classes"]
        self.scaling_ = Scaling(self.scaling, self.components)
        for name in self.scaling_.learned:
            setattr(self.scaling_, name, state[f"scaling_{name}"])


@dataclass(kw_only=True)
class AffineHead(Head):
    """Affine maps with ReLU between: most heads, once they are trained.

    Attributes:
        layers_: [(W, b), …]: W (D, H) or (D, C) or (H, C) float32, b (H,) or (C,).
    """

    layers_: list[tuple[Floats, Floats]] = field(init=False, repr=False)

    def scaled_scores(self, x: Floats) -> Floats:
        """(N, D) scaled features to (N, C) scores."""
        for w, b in self.layers_[:-1]:
            x = np.maximum(x @ w + b, 0)
        w, b = self.layers_[-1]
        return np.asarray(x @ w + b)

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything learned, as arrays."""
        maps = {
            f"{part}{number}": array
            for number, pair in enumerate(self.layers_)
            for part, array in zip("Wb", pair, strict=True)
        }
        return super().state() | maps

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take what `state` gave."""
        super().restore(state)
        count = sum(name.startswith("W") for name in state)
        self.layers_ = [(state[f"W{k}"], state[f"b{k}"]) for k in range(max(count, 1))]


def mean_scores(views: Iterable[Floats]) -> Floats:
    """(N, C) scores of each view to their mean."""
    first, *others = views
    return np.asarray(sum(others, start=first) / np.float32(1 + len(others)), np.float32)


def probabilities(scores: Floats, temperature: float) -> Floats:
    """(N, C) scores to (N, C) probabilities."""
    return np.asarray(softmax(scores / np.float32(temperature), axis=1), np.float32)


def nll_of(scores: Floats, y: Labels, temperature: float) -> float:
    """Mean negative log-likelihood, nats, of columns y (N,) under scores (N, C)."""
    log_proba = log_softmax(scores.astype(np.float64) / temperature, axis=1)
    return -float(log_proba[np.arange(len(y)), y].mean())


def fit_temperature(scores: Floats, y: Labels) -> float:
    """The temperature at which the scores of held-out rows are likeliest.

    Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017. It changes no order, hence
    no prediction.

    Args:
        scores: (M, C) of rows that the head was not trained on; -inf for a class it does not know.
        y: (M,) column of the true class.
    """

    def loss(log_temperature: float) -> float:
        return nll_of(scores, y, float(np.exp(log_temperature)))

    return float(np.exp(minimize_scalar(loss, bounds=(-7, 7), method="bounded").x))
