"""Heads trained by gradient descent, in Keras: softmax, MLP, and AlexNet's own fc layers."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pipeline import backend
from pipeline.head import AffineHead, Count, Labels, NotNegative, Positive, Watch
from pipeline.scaling import Floats
from pipeline.streaming import Streamed, batches, own_errors

Dropout = Annotated[float, Field(ge=0, lt=1)]
_SCORED_ROWS = 1024  # validation rows scored at once


@dataclass(kw_only=True)
class GradientHead(AffineHead):
    """AdamW on cross-entropy, its rate falling to zero along a cosine.

    The number of epochs is a setting, not found by stopping early: so the same training can be
    repeated on all tracks, with none held out to say when to stop.

    With ``out_of_core`` the features are not held in memory, but read in each epoch, part by part:
    the parts in an order of the epoch's own, the rows of each too. Without, all rows are mixed.
    """

    learning_rate: Positive  # at the start
    weight_decay: NotNegative
    batch_rows: Count
    epochs: Count
    out_of_core: bool
    seed: int

    def __post_init__(self) -> None:
        """Check the settings against each other.

        Raises:
            ValueError: Principal components of rows that are not all at hand.
        """
        if self.out_of_core and self.components is not None:
            raise ValueError(
                "out_of_core: true needs components: null, since principal components are learnt "
                f"from all rows at once, got {self.components}"
            )

    @property
    def streams(self) -> bool:
        """Whether it is trained on `pipeline.streaming.Streamed` rows, else on an array."""
        return self.out_of_core

    def _hidden(self) -> list[Any]:
        """Keras layers before the last."""
        return []

    def _begin(self, model: Any) -> None:
        """Set initial weights, where they are not to be random."""

    def _fed(
        self,
        x: Floats | Streamed,
        y: Labels,
        validation: tuple[Floats | Streamed, Labels] | None,
        keep: Callable[[Iterable[Any]], Iterator[Any]],
    ) -> dict[str, Any]:
        """What Keras is to train on: arrays, or batches that are read when it is their turn."""
        if not self.out_of_core:
            return {
                "x": x,
                "y": y,
                "batch_size": self.batch_rows,
                "validation_data": validation,
                "validation_batch_size": _SCORED_ROWS,
            }

        def epochs() -> Iterator[Any]:
            for epoch in range(self.epochs):
                rng = np.random.default_rng([self.seed, epoch])
                yield from batches(x, y, self.batch_rows, rng)

        fed = {
            "x": keep(epochs()),
            "steps_per_epoch": -(-len(x) // self.batch_rows),
            "shuffle": False,  # done already
        }
        if validation is None:
            return fed

        def looks(x: Floats | Streamed, y: Labels) -> Iterator[Any]:
            for _ in range(self.epochs):
                yield from batches(x, y, _SCORED_ROWS)

        return fed | {
            "validation_data": keep(looks(*validation)),
            "validation_steps": -(-len(validation[1]) // _SCORED_ROWS),
        }

    def _fit(
        self,
        x: Floats | Streamed,
        y: Labels,
        validation: tuple[Floats | Streamed, Labels] | None,
        watch: Watch,
    ) -> None:
        keras = backend.keras()
        keras.utils.set_random_seed(self.seed)
        last = keras.layers.Dense(len(self.classes_))
        model = keras.Sequential([keras.Input((x.shape[1],)), *self._hidden(), last])
        self._begin(model)
        steps = -(-len(x) // self.batch_rows) * self.epochs
        rate = keras.optimizers.schedules.CosineDecay(self.learning_rate, steps)
        model.compile(
            optimizer=keras.optimizers.AdamW(rate, weight_decay=self.weight_decay),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )

        def told(epoch: int, logs: dict[str, float]) -> None:
            watch(f"epoch {epoch + 1} of {self.epochs}")

        with own_errors() as keep:
            history = model.fit(
                **self._fed(x, y, validation, keep),
                epochs=self.epochs,
                callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=told)],
                verbose=0,
            ).history
        epochs = zip(*(history[key] for key in history), strict=True)
        self.history_ = [
            {"epoch": number} | dict(zip(history, map(float, values), strict=True))
            for number, values in enumerate(epochs, start=1)
        ]
        self.layers_ = [
            (np.asarray(w), np.asarray(b))
            for w, b in (layer.get_weights() for layer in model.layers if layer.weights)
        ]


@dataclass(kw_only=True)
class SoftmaxHead(GradientHead, kind="softmax"):
    """One softmax layer: multinomial regression by stochastic gradient."""


@dataclass(kw_only=True)
class MLPHead(GradientHead, kind="mlp"):
    """One hidden layer with ReLU and dropout."""

    hidden: Count
    dropout: Dropout

    def _hidden(self) -> list[Any]:
        layers = backend.keras().layers
        return [layers.Dense(self.hidden, "relu"), layers.Dropout(self.dropout)]


@dataclass(kw_only=True)
class FineTunedHead(GradientHead, kind="fine_tuned"):
    """AlexNet's own fc6 and fc7, trained on from cached pool5, and a new last layer.

    It is fine-tuning in which every gradient stops at pool5: the convolutions, whose output is in
    the cache, never run again.

    Attributes:
        start_: fc6 and fc7 as [(W, b), (W, b)], to be set before `fit`.
    """

    scaling: Literal["none"]
    components: None
    start: Literal["base", "seeded"]  # the weights of the base, or random ones of its shapes
    dropout: Dropout
    start_: list[tuple[Floats, Floats]] = field(init=False, repr=False)

    def _hidden(self) -> list[Any]:
        layers = backend.keras().layers
        hidden: list[Any] = []
        for w, _ in self.start_:
            hidden += [layers.Dense(w.shape[1], "relu"), layers.Dropout(self.dropout)]
        return hidden

    def _begin(self, model: Any) -> None:
        (w6, b6), *rest = self.start_
        # fc6 expects features as they are; here they come centred.
        begin = [(w6, b6 + self.scaling_.mean_ @ w6), *rest]
        dense = [layer for layer in model.layers if layer.weights]
        for layer, pair in zip(dense, begin, strict=False):
            layer.set_weights(pair)
