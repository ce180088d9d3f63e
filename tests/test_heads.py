"""Heads against Keras, scikit-learn and slow definitions."""

from typing import Any

import numpy as np
import pytest
from heads import (
    CLASSES,
    HEADS,
    SCALINGS,
    TEST,
    X_VAL,
    Y_VAL,
    Floats,
    X,
    Y,
    every_head,
    every_scaling,
    features,
    fitted,
    fresh,
    trained,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import LabelBinarizer

from pipeline import backend
from pipeline.errors import InputError
from pipeline.head import Head, fit_temperature, nll_of, probabilities, unwatched
from pipeline.heads import KINDS
from pipeline.linear import RidgeHead
from pipeline.scaling import Kind, Scaling
from pipeline.selection import Data, Job, trial


def scaled(head: Head, x: Floats) -> NDArray[np.float64]:
    return head.scaling_.transform([x]).astype(np.float64)


def accuracy(head: Head, x: Floats, y: Any) -> float:
    return float((head.classes_[head.predict_proba([x]).argmax(axis=1)] == y).mean())


def assert_same(one: Head, other: Head) -> None:
    left, right = one.state(), other.state()
    assert left.keys() == right.keys()
    for key in left:
        np.testing.assert_array_equal(left[key], right[key])


def test_every_kind_is_tested() -> None:
    # The tests of the documents register more.
    assert {name: type(head) for name, head in HEADS.items()}.items() <= KINDS.items()
    ours = {name for name, kind in KINDS.items() if kind.__module__.startswith("pipeline.")}
    assert ours == set(HEADS)


@pytest.mark.parametrize(
    ("name", "scaling"),
    [("softmax", "none"), ("softmax", "sqrt_l2"), ("mlp", "standardize"), ("fine_tuned", "none")],
)
def test_probabilities_are_those_of_the_keras_model(
    name: str, scaling: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras, models = backend.keras(), []
    sequential = keras.Sequential

    def noted(*args: Any) -> Any:
        models.append(sequential(*args))
        return models[-1]

    monkeypatch.setattr(keras, "Sequential", noted)
    head = fitted(name, scaling=scaling, epochs=2)
    scores = np.asarray(models[0](scaled(head, TEST).astype(np.float32), training=False))
    expected = softmax(scores.astype(np.float64), axis=1)
    np.testing.assert_allclose(head.predict_proba([TEST]), expected, atol=2e-5)


@every_scaling
def test_logistic_probabilities_are_scikit_learns(scaling: Kind) -> None:
    head = fitted("logistic", scaling=scaling, C=0.1)
    model = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000).fit(scaled(head, X), Y)
    expected = model.predict_proba(scaled(head, TEST))
    np.testing.assert_allclose(head.predict_proba([TEST]), expected, atol=2e-4)


@every_scaling
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("alpha", [0.01, 1.0, 100.0])
def test_ridge_is_scikit_learns(scaling: Kind, wide: bool, alpha: float) -> None:
    x, later = (np.tile(X, 20)[:, :200], np.tile(TEST, 20)[:, :200]) if wide else (X, TEST)
    x = x + np.random.default_rng(0).normal(0, 0.5, x.shape).astype(np.float32)
    one = fitted("ridge", x, scaling=scaling, alpha=alpha)
    rows = scaled(one, x)
    unit = (rows**2).sum(axis=1).mean()
    model = Ridge(alpha=alpha * unit).fit(rows, 2.0 * LabelBinarizer().fit_transform(Y) - 1)
    expected = model.predict(scaled(one, later))
    np.testing.assert_allclose(one.scores([later]), expected, atol=2e-3)
    # And so is each of many, from one product.
    heads = [fresh("ridge", scaling=scaling, alpha=a) for a in (alpha, 3 * alpha, 7.0)]
    fit_scaling = Scaling(scaling)
    scaled_x = fit_scaling.fit_transform([x])
    many = list(Head.fit_path(heads, fit_scaling, scaled_x, Y))
    assert many == heads
    np.testing.assert_array_equal(many[0].scores([later]), one.scores([later]))


def test_ridge_solves_the_smaller_system(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def solve(gram: Any, right: Any, **options: Any) -> Any:
        shapes.append(gram.shape)
        return np.linalg.solve(gram, right)

    monkeypatch.setattr("pipeline.linear.solve", solve)
    for x in (X, np.tile(X, 20)):
        scaling = Scaling("none")
        heads = [fresh("ridge", scaling="none", alpha=alpha) for alpha in (0.1, 1.0)]
        assert len(list(Head.fit_path(heads, scaling, scaling.fit_transform([x]), Y))) == 2
    assert shapes == [(12, 12), (12, 12), (160, 160), (160, 160)]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("alpha", [1e-12, 1e-7])
def test_a_penalty_too_small_for_single_precision_is_told(wide: bool, alpha: float) -> None:
    x = np.tile(X, 20 if wide else 2)  # many directions without any variance
    with pytest.raises(InputError, match=rf"cannot be solved .* alpha {alpha:g}; expected a larg"):
        fitted("ridge", x, scaling="none", alpha=alpha)


@every_scaling
def test_nearest_mean_is_scikit_learns(scaling: Kind) -> None:
    head = fitted("nearest_mean", scaling=scaling)
    model = NearestCentroid().fit(scaled(head, X), Y)
    expected = model.predict(scaled(head, TEST))
    np.testing.assert_array_equal(head.classes_[head.scores([TEST]).argmax(axis=1)], expected)


@every_scaling
@pytest.mark.parametrize("k", [1, 5, 500])
def test_neighbours_are_scikit_learns(scaling: Kind, k: int) -> None:
    head = fitted("neighbours", scaling=scaling, k=k)
    model = KNeighborsClassifier(
        min(k, len(X)), metric="cosine", weights=lambda distance: np.maximum(1 - distance, 0)
    )
    rows = scaled(head, X)
    model.fit(rows / np.linalg.norm(rows, axis=1, keepdims=True), Y)
    distance, place = model.kneighbors(scaled(head, TEST))
    votes = np.zeros((len(TEST), len(CLASSES)))
    for row, (cosine, nearest) in enumerate(zip(1 - distance, place, strict=True)):
        for value, which in zip(cosine, nearest, strict=True):
            votes[row, CLASSES.index(Y[which])] += max(value, 0)
    expected = (votes + 1 / 4) / (votes + 1 / 4).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(head.predict_proba([TEST]), expected, atol=5e-3)


def test_neighbours_in_blocks_are_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    head = trained("neighbours")
    whole = head.scores([TEST])
    monkeypatch.setattr("pipeline.neighbours._QUERY_ROWS", 7)
    np.testing.assert_allclose(head.scores([TEST]), whole, rtol=1e-5)


def test_fine_tuning_starts_from_the_weights_given() -> None:
    """With a learning rate of next to nothing, what comes before the last layer is the base's."""
    head = fitted("fine_tuned", learning_rate=1e-12, epochs=1, dropout=0.0)
    hidden = TEST
    for w, b in HEADS["fine_tuned"].start_:  # type: ignore[attr-defined]
        hidden = np.maximum(hidden @ w + b, 0)
    w, b = head.layers_[-1]  # type: ignore[attr-defined]
    np.testing.assert_allclose(head.scores([TEST]), hidden @ w + b, rtol=1e-3, atol=1e-3)


def test_fine_tuning_trains_every_layer() -> None:
    before, after = HEADS["fine_tuned"].start_, trained("fine_tuned").layers_  # type: ignore[attr-defined]
    for (w, _), (tuned, _) in zip(before, after, strict=False):
        assert w.shape == tuned.shape
        assert abs(w - tuned).max() > 1e-3


@every_head
def test_heads_learn(name: str) -> None:
    head = trained(name)
    assert accuracy(head, X_VAL, Y_VAL) > 0.6
    assert head.classes_.tolist() == list(CLASSES)
    proba = head.predict_proba([TEST])
    assert proba.shape == (50, 4)
    assert proba.dtype == np.float32
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)


@every_head
def test_half_precision_is_taken_for_its_values(name: str) -> None:
    head, half = trained(name), TEST.astype(np.float16)
    np.testing.assert_array_equal(
        head.predict_proba([half]), head.predict_proba([half.astype(np.float32)])
    )
    assert_same(fitted(name, X.astype(np.float16)), head)


@every_head
def test_several_layers_are_one_wide_one(name: str) -> None:
    if name == "fine_tuned":
        pytest.skip("takes pool5 alone")
    parts = [X[:, :5], X[:, 5:]]
    head = fresh(name, scaling="standardize").fit(parts, Y)
    whole = fitted(name, scaling="standardize")
    np.testing.assert_allclose(
        head.predict_proba([TEST[:, :5], TEST[:, 5:]]), whole.predict_proba([TEST]), atol=1e-4
    )


@every_head
def test_fit_leaves_the_features_alone(name: str) -> None:
    head, x = fresh(name), X.copy()
    assert head.fit([x], Y) is head
    np.testing.assert_array_equal(x, X)


@every_head
def test_fitting_scaled_features_leaves_them_alone(name: str) -> None:
    head = fresh(name)
    scaling = Scaling(head.scaling, head.components)
    x = scaling.fit_transform([X])
    before = x.copy()
    list(Head.fit_path([head], scaling, x, Y))
    np.testing.assert_array_equal(x, before)


@every_head
def test_validation_rows_teach_nothing(name: str) -> None:
    head = fitted(name, validation=(X_VAL, Y_VAL))
    other = fitted(name, validation=(1000 * X_VAL[::-1], Y_VAL))
    assert_same(head, other)
    assert_same(head, trained(name))


@pytest.mark.parametrize("name", ["softmax", "mlp", "fine_tuned"])
def test_history_tells_of_each_epoch(name: str) -> None:
    head, told = fresh(name), []
    head.fit([X], Y, ([X_VAL], Y_VAL), told.append)
    assert [entry["epoch"] for entry in head.history_] == [1, 2, 3, 4, 5, 6]
    assert told == [f"epoch {k} of 6" for k in range(1, 7)]
    last = head.history_[-1]
    assert last["val_accuracy"] == pytest.approx(accuracy(head, X_VAL, Y_VAL), abs=1e-6)
    assert {"loss", "accuracy", "val_loss"} <= last.keys()


def test_another_seed_another_head() -> None:
    with pytest.raises(AssertionError):
        assert_same(fitted("softmax", seed=1), trained("softmax"))


@pytest.mark.parametrize("scaling", SCALINGS)
def test_components_change_little_where_they_are_all_kept(scaling: Kind) -> None:
    whole, rotated = (fitted("ridge", scaling=scaling, components=c) for c in (None, 12))
    np.testing.assert_allclose(whole.scores([TEST]), rotated.scores([TEST]), atol=2e-3)


@every_head
def test_two_classes(name: str) -> None:
    x, y = features(120, 0, (3, 7))
    x_val, y_val = features(40, 1, (3, 7))
    head = fitted(name, x, y)
    assert head.predict_proba([x_val]).shape == (40, 2)
    assert accuracy(head, x_val, y_val) > 0.6


@pytest.mark.parametrize("name", ["mlp", "logistic", "ridge", "nearest_mean", "neighbours"])
def test_features_that_say_nothing(name: str) -> None:
    head = fitted(name, np.zeros_like(X))
    assert np.isfinite(head.predict_proba([TEST])).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 5))
def test_temperature_is_scikit_learns(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, 200)
    scores = (size * (2 * np.eye(4)[y] + rng.normal(0, 1, (200, 4)))).astype(np.float32)

    class Scores(LogisticRegression):
        classes_ = np.arange(4)

        def decision_function(self, x: Any) -> Any:
            return x

        def __sklearn_is_fitted__(self) -> bool:
            return True

    model = CalibratedClassifierCV(FrozenEstimator(Scores()), method="temperature").fit(scores, y)
    temperature = fit_temperature(scores, y)
    expected = model.predict_proba(scores)
    np.testing.assert_allclose(probabilities(scores, temperature), expected, atol=5e-3)
    for other in (0.9, 1.1):
        assert nll_of(scores, y, temperature) <= nll_of(scores, y, other * temperature) + 1e-6


def test_temperature_changes_no_answer() -> None:
    head = fitted("softmax")
    before = head.predict_proba([TEST]).argmax(axis=1)
    head.temperature_ = 3.0
    np.testing.assert_array_equal(head.predict_proba([TEST]).argmax(axis=1), before)


def test_a_class_no_head_has_seen_does_not_spoil_the_temperature() -> None:
    scores = np.array([[2.0, 0.0, -np.inf], [1.0, 2.0, -np.inf], [3.0, 1.0, -np.inf]], np.float32)
    assert np.isfinite(fit_temperature(scores, np.array([0, 1, 1])))


def test_the_penalty_of_a_ridge_is_free_of_the_features_size() -> None:
    one = fitted("ridge", scaling="none", alpha=1.0)
    other = fitted("ridge", 1000 * X, scaling="none", alpha=1.0)
    assert isinstance(one, RidgeHead)
    np.testing.assert_allclose(one.scores([TEST]), other.scores([1000 * TEST]), atol=1e-3)


@pytest.mark.parametrize("out_of_core", [False, True])
def test_validation_rows_of_a_class_not_trained_on_are_passed_over(out_of_core: bool) -> None:
    label = np.searchsorted(CLASSES, Y)
    known = np.flatnonzero(np.isin(label, [1, 2]))
    train, val = known[:50], np.arange(100, 160)
    data = Data([X], label, len(CLASSES), part=np.arange(160) // 32)
    head = fresh("softmax", scaling="l2", epochs=2, out_of_core=out_of_core)
    outcomes = [
        trial(Job([head], train, rows), data, unwatched)[0]
        for rows in (val, np.intersect1d(val, known), np.setdiff1d(val, known))
    ]
    mixed, seen, unseen = outcomes
    assert mixed.history == seen.history
    assert "val_loss" not in unseen.history[0]
    assert unseen.accuracy == 0
    assert mixed.accuracy == seen.accuracy / 2
    assert np.isneginf(mixed.scores[:, [0, 3]]).all()
