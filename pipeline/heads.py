"""The heads: what is trained on the cached features, and compared.

A head is a class and a block in params.yaml. All follow scikit-learn's contract: hyper-parameters
in, ``fit`` returns self, learned names end in ``_``. Once fitted, each of these three is its
scaling and one or two affine maps, so all predict with the same few lines of NumPy and are saved
as plain arrays.

Glossary: N rows, D features, C classes, H hidden units.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from pipeline import backend
from pipeline.scaling import Floats, Kind, Scaling

Features = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
Progress = Callable[[int], Any]  # total -> a tqdm-like bar with update() and set_postfix_str()

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


@dataclass(kw_only=True)
class Head(ABC):
    """The contract.

    Attributes:
        scaling: See `pipeline.scaling.Scaling`; fitted on the training rows.
        classes_: (C,) the labels it was trained on, ascending; C counts these.
        layers_: [(W, b), …]: W (D, H) or (D, C) or (H, C) float32, b (H,) or (C,). ReLU between.
        history_: One entry per candidate that validation chose from: "epoch" or "C", "accuracy"
            and "val_accuracy", shares 0..1.
        chosen_: The choice, in words.
    """

    kind: str
    scaling: Kind
    classes_: Labels = field(init=False, repr=False)
    scaling_: Scaling = field(init=False, repr=False)
    layers_: list[tuple[Floats, Floats]] = field(init=False, repr=False)
    history_: list[dict[str, float]] = field(init=False, repr=False)
    chosen_: str = field(init=False, repr=False)

    # How settings from a file are checked: pydantic reads the annotations of the fields.
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)

    def fit(
        self, x: Features, y: Labels, x_val: Features, y_val: Labels, progress: Progress
    ) -> Self:
        """Train on one set of tracks, choose on another.

        Args:
            x: (N, D) training features, as stored.
            y: (N,) labels.
            x_val: (M, D) features of other tracks.
            y_val: (M,) their labels, none that is not in y.
            progress: Makes a progress bar of a given length.
        """
        self.classes_, y = np.unique(y, return_inverse=True)
        y_val = np.searchsorted(self.classes_, y_val)
        self.scaling_ = Scaling(self.scaling).fit(x)
        self.history_ = []
        x, x_val = self.scaling_.transform(x), self.scaling_.transform(x_val)
        # Centred for the optimiser: activations share a large mean, and every optimiser crawls
        # along it. What a head can express does not change.
        mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
        x -= mean
        x_val -= mean
        self._fit(x, y, x_val, y_val, progress)
        # Folded into the first layer, so that prediction needs to know nothing of it.
        w, b = self.layers_[0]
        self.layers_[0] = w, b - mean @ w
        return self

    @abstractmethod
    def _fit(
        self, x: Features, y: Labels, x_val: Features, y_val: Labels, progress: Progress
    ) -> None:
        """Set layers_, history_ and chosen_ from scaled features and labels 0..C-1."""

    def predict_proba(self, x: Features) -> NDArray[np.float32]:
        """(N, D) features as stored to (N, C) probabilities, columns as in classes_."""
        return np.asarray(softmax(self._scores(self.scaling_.transform(x)), axis=1), np.float32)

    def _scores(self, x: Floats) -> Floats:
        for w, b in self.layers_[:-1]:
            x = np.maximum(x @ w + b, 0)
        w, b = self.layers_[-1]
        return np.asarray(x @ w + b)


@dataclass(kw_only=True)
class _KerasHead(Head):
    """Trained by Adam on cross-entropy; validation chooses the epoch."""

    learning_rate: Positive
    batch_rows: Count
    epochs: Count
    patience: Count  # epochs without a better validation accuracy before stopping
    seed: int

    def _hidden(self) -> list[Any]:
        """Keras layers before the last."""
        return []

    def _fit(
        self, x: Features, y: Labels, x_val: Features, y_val: Labels, progress: Progress
    ) -> None:
        keras = backend.keras()
        keras.utils.set_random_seed(self.seed)
        last = keras.layers.Dense(len(self.classes_))
        model = keras.Sequential([keras.Input((x.shape[1],)), *self._hidden(), last])
        model.compile(
            optimizer=keras.optimizers.Adam(self.learning_rate),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        bar = progress(self.epochs)

        def shown(epoch: int, logs: dict[str, float]) -> None:
            bar.set_postfix_str(f"validation {100 * logs['val_accuracy']:.1f} %")
            bar.update()

        stop = keras.callbacks.EarlyStopping(
            "val_accuracy", mode="max", patience=self.patience, restore_best_weights=True
        )
        history = model.fit(
            x,
            y,
            batch_size=self.batch_rows,
            epochs=self.epochs,
            validation_data=(x_val, y_val),
            callbacks=[stop, keras.callbacks.LambdaCallback(on_epoch_end=shown)],
            verbose=0,
        ).history
        bar.close()
        epochs = zip(*(history[key] for key in history), strict=True)
        self.history_ = [
            {"epoch": number} | dict(zip(history, map(float, values), strict=True))
            for number, values in enumerate(epochs, start=1)
        ]
        self.chosen_ = f"epoch {stop.best_epoch + 1}"
        self.layers_ = [
            (np.asarray(w), np.asarray(b))
            for w, b in (layer.get_weights() for layer in model.layers if layer.weights)
        ]


@dataclass(kw_only=True)
class SoftmaxHead(_KerasHead):
    """One softmax layer: multinomial regression by stochastic gradient."""

    kind: Literal["softmax"]


@dataclass(kw_only=True)
class MLPHead(_KerasHead):
    """One hidden layer with ReLU and dropout."""

    kind: Literal["mlp"]
    hidden: Count
    dropout: Annotated[float, Field(ge=0, lt=1)]

    def _hidden(self) -> list[Any]:
        layers = backend.keras().layers
        return [layers.Dense(self.hidden, "relu"), layers.Dropout(self.dropout)]


@dataclass(kw_only=True)
class LogisticHead(Head):
    """Multinomial logistic regression with an L2 penalty; validation chooses its strength.

    The problem is convex: where lbfgs converges, seed and start do not matter.
    """

    kind: Literal["logistic"]
    C: Annotated[list[Positive], Field(min_length=1)]  # inverse penalties to choose from
    tol: Positive  # largest gradient entry to stop at; the smaller the features, the smaller
    max_iter: Count

    def _fit(
        self, x: Features, y: Labels, x_val: Features, y_val: Labels, progress: Progress
    ) -> None:
        bar = progress(len(self.C))
        best = -1.0
        # From the strongest penalty on, each start from the solution before: fewer iterations.
        model = LogisticRegression(tol=self.tol, max_iter=self.max_iter, warm_start=True)
        for C in sorted(self.C):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # told in the history instead
                model.set_params(C=C).fit(x, y)
            accuracy = float(np.mean(model.predict(x_val) == y_val))
            iterations = int(model.n_iter_[0])
            self.history_.append(
                {
                    "C": C,
                    "accuracy": float(np.mean(model.predict(x) == y)),
                    "val_accuracy": accuracy,
                    "iterations": iterations,
                }
            )
            if accuracy > best:
                best = accuracy
                self.chosen_ = f"C = {C:g}"
                w, b = model.coef_.T.astype(np.float32), model.intercept_.astype(np.float32)
                if w.shape[1] == 1:  # of two classes, scikit-learn keeps the second's score
                    w, b = np.concatenate([0 * w, w], axis=1), np.concatenate([0 * b, b])
                self.layers_ = [(w, b)]
            bar.set_postfix_str(f"C {C:g}, validation {100 * accuracy:.1f} %")
            bar.update()
        bar.close()


KINDS: dict[str, type[Head]] = {
    "softmax": SoftmaxHead,
    "mlp": MLPHead,
    "logistic": LogisticHead,
}
