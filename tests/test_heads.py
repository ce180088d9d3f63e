"""Heads against Keras, scikit-learn and slow definitions; saved, they come back as they were."""

import io
import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler, normalize
from tqdm import tqdm

from pipeline import backend
from pipeline.errors import InputError
from pipeline.heads import KINDS, Head, LogisticHead, MLPHead, SoftmaxHead
from pipeline.saved import load_head, save_head
from pipeline.scaling import Kind, Scaling

Floats = NDArray[np.float32]
SCALINGS = get_args(Kind)


def values(dtype: Any) -> st.SearchStrategy[NDArray[Any]]:
    """Features: (N, D), now and then with rows of zeros or columns of one value.

    None is so small that scikit-learn would take a row of it for zeros.
    """
    width = np.dtype(dtype).itemsize * 8
    numbers = st.floats(-100, 100, width=width).map(lambda x: x if abs(x) > 1e-3 else 0.0)
    shapes = st.tuples(st.integers(1, 8), st.integers(1, 5))
    tables = arrays(dtype, shapes, elements=numbers)

    def flattened(table: NDArray[Any], row: int, column: int) -> NDArray[Any]:
        table = table.copy()
        table[row % len(table)] = 0
        table[:, column % table.shape[1]] = table[-1, 0]
        return table

    places = st.integers(0, 9)
    return st.one_of(tables, st.builds(flattened, tables, places, places))


float_types = pytest.mark.parametrize("dtype", [np.float16, np.float32])


def scaled(kind: Kind, x: NDArray[Any]) -> Floats:
    before = x.copy()
    out = Scaling(kind).fit(x).transform(x)
    assert out.dtype == np.float32
    assert not np.shares_memory(out, x)
    np.testing.assert_array_equal(x, before)
    return out


@float_types
@settings(deadline=None)
@given(st.data())
def test_standardize_is_scikit_learns(dtype: Any, data: st.DataObject) -> None:
    x = data.draw(values(dtype))
    expected = StandardScaler().fit(x.astype(np.float64)).transform(x.astype(np.float64))
    expected[:, np.ptp(x, axis=0) == 0] = 0
    out = scaled("standardize", x)
    # The mean is kept in float32: an error of half a unit in its last place, in deviations.
    deviation = x.std(axis=0, dtype=np.float64)
    mean = abs(x.mean(axis=0, dtype=np.float64))
    slack = 1e-7 * mean / np.where(deviation > 0, deviation, 1)
    assert (abs(out - expected) <= 1e-5 * abs(expected) + 1e-6 + slack).all()


@float_types
@settings(deadline=None)
@given(st.data())
def test_l2_is_scikit_learns(dtype: Any, data: st.DataObject) -> None:
    x = data.draw(values(dtype))
    expected = normalize(x.astype(np.float64))
    np.testing.assert_allclose(scaled("l2", x), expected, rtol=1e-5, atol=1e-30)


@float_types
@settings(deadline=None)
@given(st.data())
def test_sqrt_l2_is_its_definition(dtype: Any, data: st.DataObject) -> None:
    x = data.draw(values(dtype))
    out = scaled("sqrt_l2", x)
    for row, got in zip(x.astype(np.float64), out, strict=True):
        total = sum(abs(value) for value in row) or 1
        expected = [np.sign(value) * (abs(value) / total) ** 0.5 for value in row]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-30)


@float_types
@settings(deadline=None)
@given(st.data())
def test_no_scaling_changes_nothing(dtype: Any, data: st.DataObject) -> None:
    x = data.draw(values(dtype))
    np.testing.assert_array_equal(scaled("none", x), x)


@pytest.mark.parametrize("kind", ["l2", "sqrt_l2"])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_lengths_neither_vanish_nor_overflow(kind: Kind, size: float) -> None:
    np.testing.assert_allclose(scaled(kind, np.full((1, 4), size, np.float32)), 0.5, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4, -3.3e-5])
def test_constant_feature_becomes_zero_also_where_it_varies_later(value: float) -> None:
    train = np.full((1001, 1), value, np.float32)
    later = np.array([[value], [value + 1]], np.float32)
    assert not Scaling("standardize").fit(train).transform(later).any()


def test_deviation_is_of_the_training_rows() -> None:
    train, other = np.array([[1.0], [3.0]], np.float32), np.array([[7.0]], np.float32)
    assert Scaling("standardize").fit(train).transform(other) == [[5.0]]


CLASSES = (1, 12, 14, 38)


def features(rows: int, seed: int, classes: tuple[int, ...] = CLASSES) -> tuple[Floats, Any]:
    """What fc7 is like: no value below zero, a large common mean, classes that overlap.

    The values are such that float16 holds them.
    """
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 1.5, (len(classes), 12))
    kind = np.arange(rows) % len(classes)
    x = np.maximum(4 + centres[kind] + rng.normal(0, 1.5, (rows, 12)), 0)
    return x.astype(np.float16).astype(np.float32), np.array(classes)[kind]


X, Y = features(160, 0)
X_VAL, Y_VAL = features(60, 1)
TEST, _ = features(50, 2)

HEADS: dict[str, Head] = {
    "softmax": SoftmaxHead(
        kind="softmax",
        scaling="sqrt_l2",
        learning_rate=0.05,
        batch_rows=32,
        epochs=6,
        patience=6,
        seed=0,
    ),
    "mlp": MLPHead(
        kind="mlp",
        scaling="standardize",
        learning_rate=0.01,
        batch_rows=32,
        epochs=6,
        patience=6,
        seed=0,
        hidden=7,
        dropout=0.3,
    ),
    "logistic": LogisticHead(
        kind="logistic", scaling="l2", C=[0.1, 1.0, 10.0], tol=1e-6, max_iter=2000
    ),
}
every_head = pytest.mark.parametrize("name", HEADS)
every_scaling = pytest.mark.parametrize("scaling", SCALINGS)


def silent(total: int) -> Any:
    return tqdm(total=total, disable=True)


def fitted(
    head: str | Head, x: Any = X, x_val: Any = X_VAL, y: Any = Y, y_val: Any = Y_VAL, **changes: Any
) -> Head:
    head = HEADS[head] if isinstance(head, str) else head
    return replace(head, **changes).fit(x, y, x_val, y_val, silent)


trained = cache(fitted)  # for tests that only look


def conditioned(head: Head, train: Floats, x: Floats) -> NDArray[np.float64]:
    """What the optimiser sees: scaled, and centred on the training rows."""
    train, x = (Scaling(head.scaling).fit(train).transform(part) for part in (train, x))
    return np.asarray(x - train.mean(axis=0, dtype=np.float64))


def accuracy(head: Head, x: Floats, y: Any) -> float:
    return float((head.classes_[head.predict_proba(x).argmax(axis=1)] == y).mean())


def assert_same(one: Head, other: Head) -> None:
    for a, b in zip(one.layers_, other.layers_, strict=True):
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(left, right)


def test_every_kind_is_tested() -> None:
    assert {name: type(head) for name, head in HEADS.items()} == KINDS


@pytest.mark.parametrize(
    ("name", "scaling"),
    [("softmax", "none"), ("softmax", "sqrt_l2"), ("mlp", "standardize"), ("mlp", "l2")],
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
    inputs = conditioned(head, X, TEST).astype(np.float32)
    scores = np.asarray(models[0](inputs, training=False), np.float64)
    np.testing.assert_allclose(head.predict_proba(TEST), softmax(scores, axis=1), atol=2e-5)


@every_scaling
def test_logistic_probabilities_are_scikit_learns(scaling: Kind) -> None:
    head = fitted("logistic", scaling=scaling, C=[0.1])
    model = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000)
    model.fit(conditioned(head, X, X), Y)
    expected = model.predict_proba(conditioned(head, X, TEST))
    np.testing.assert_allclose(head.predict_proba(TEST), expected, atol=2e-4)


@every_head
def test_heads_learn(name: str) -> None:
    head = trained(name)
    assert accuracy(head, X_VAL, Y_VAL) > 0.6
    assert head.classes_.tolist() == list(CLASSES)
    probabilities = head.predict_proba(TEST)
    assert probabilities.shape == (50, 4)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@every_head
def test_prediction_takes_what_the_store_keeps(name: str) -> None:
    head, half = trained(name), TEST.astype(np.float16)
    np.testing.assert_array_equal(
        head.predict_proba(half), head.predict_proba(half.astype(np.float32))
    )


@every_head
def test_half_precision_trains_as_its_values_do(name: str) -> None:
    assert_same(fitted(name, X.astype(np.float16), X_VAL.astype(np.float16)), trained(name))


@every_head
def test_history_and_choice_tell_of_the_head_that_is_kept(name: str) -> None:
    head = trained(name)
    best = max(entry["val_accuracy"] for entry in head.history_)
    first = next(entry for entry in head.history_ if entry["val_accuracy"] == best)
    chosen = f"epoch {first['epoch']}" if name != "logistic" else f"C = {first['C']:g}"
    assert head.chosen_ == chosen
    assert accuracy(head, X_VAL, Y_VAL) == pytest.approx(best, abs=1e-6)


def test_patience_ends_the_training() -> None:
    head = fitted("softmax", patience=1, epochs=200, learning_rate=0.5)
    shares = [entry["val_accuracy"] for entry in head.history_]
    assert [entry["epoch"] for entry in head.history_] == list(range(1, len(shares) + 1))
    assert len(shares) < 200
    assert shares[-1] <= shares[-2]
    assert head.chosen_ == f"epoch {1 + int(np.argmax(shares))}"
    assert accuracy(head, X_VAL, Y_VAL) == pytest.approx(max(shares), abs=1e-6)


def test_logistic_tries_each_penalty_from_the_strongest_on() -> None:
    head = fitted("logistic", C=[10.0, 0.1, 1.0])
    assert [entry["C"] for entry in head.history_] == [0.1, 1.0, 10.0]
    assert_same(head, trained("logistic"))
    for entry in head.history_:
        alone = fitted("logistic", C=[entry["C"]])
        assert accuracy(alone, X, Y) == pytest.approx(entry["accuracy"], abs=0.01)


def test_logistic_that_does_not_converge_says_how_far_it_came() -> None:
    assert [e["iterations"] for e in fitted("logistic", C=[10.0], max_iter=3).history_] == [3]


@pytest.mark.parametrize("name", ["softmax", "logistic"])
def test_two_classes(name: str) -> None:
    x, y = features(120, 0, (3, 7))
    x_val, y_val = features(40, 1, (3, 7))
    head = fitted(name, x, x_val, y=y, y_val=y_val)
    assert head.predict_proba(x_val).shape == (40, 2)
    best = max(entry["val_accuracy"] for entry in head.history_)
    assert accuracy(head, x_val, y_val) == pytest.approx(best, abs=1e-6)
    assert best > 0.6


@every_head
def test_fit_fills_its_bar_and_leaves_the_features_alone(name: str) -> None:
    head, x, x_val, bars = replace(HEADS[name]), X.copy(), X_VAL.copy(), []

    def progress(total: int) -> Any:
        bars.append(tqdm(total=total, file=io.StringIO()))
        return bars[-1]

    assert head.fit(x, Y, x_val, Y_VAL, progress) is head
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(x_val, X_VAL)
    assert [(bar.n, bar.total) for bar in bars] == [(len(head.history_),) * 2]
    assert bars[0].disable  # closed


def test_another_seed_another_head() -> None:
    with pytest.raises(AssertionError):
        assert_same(fitted("softmax", seed=1), trained("softmax"))


@every_head
def test_validation_rows_teach_nothing(name: str) -> None:
    """With one candidate there is nothing to choose, and so nothing for them to change."""
    single: dict[str, Any] = {"C": [1.0]} if name == "logistic" else {"epochs": 1}
    head = fitted(name, scaling="standardize", **single)
    other = fitted(name, x_val=1000 * X_VAL[::-1], scaling="standardize", **single)
    np.testing.assert_array_equal(head.scaling_.mean_, other.scaling_.mean_)
    np.testing.assert_array_equal(head.scaling_.scale_, other.scaling_.scale_)
    np.testing.assert_allclose(head.scaling_.mean_, X.mean(axis=0), rtol=1e-5)
    assert_same(head, other)


@pytest.mark.parametrize("name", ["mlp", "logistic"])
def test_features_that_say_nothing(name: str) -> None:
    head = fitted(name, np.zeros_like(X), np.zeros_like(X_VAL))
    assert np.isfinite(head.predict_proba(TEST)).all()


FACTS = {"features": "fc7", "fingerprint": "abc", "classes": [1, 12]}


def saved(folder: Path, name: str = "mlp") -> Path:
    save_head(trained(name), folder / name, FACTS)
    return folder / name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_comes_back(head: Head, folder: Path) -> None:
    save_head(head, folder, FACTS)
    loaded, facts = load_head(folder)
    assert facts == FACTS
    assert repr(loaded) == repr(head)
    assert (loaded.history_, loaded.chosen_) == (head.history_, head.chosen_)
    np.testing.assert_array_equal(loaded.classes_, head.classes_)
    np.testing.assert_array_equal(loaded.predict_proba(TEST), head.predict_proba(TEST))


@every_head
def test_saved_and_loaded_is_the_same(tmp_path: Path, name: str) -> None:
    assert_comes_back(trained(name), tmp_path / "deep" / "folder")


@every_scaling
def test_scaling_comes_back(tmp_path: Path, scaling: Kind) -> None:
    assert_comes_back(fitted("logistic", scaling=scaling, C=[1.0]), tmp_path)


@every_head
def test_saved_arrays_are_plain_and_in_single_precision(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path, name)
    assert set(contents(folder)) == {"head.json", "arrays.npz"}
    with np.load(folder / "arrays.npz", allow_pickle=False) as stored:
        kept = {key: str(stored[key].dtype) for key in stored.files}
    assert kept.pop("classes") == "int64"
    assert set(kept.values()) == {"float32"}


@every_head
def test_same_seed_same_bytes(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    save_head(trained(name), tmp_path / "one", FACTS)
    later = time.time() + 100_000
    monkeypatch.setattr(time, "time", lambda: later)
    save_head(fitted(name), tmp_path / "other", FACTS)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_saving_over_another_head_leaves_nothing_of_it(tmp_path: Path) -> None:
    for name in ("mlp", "softmax"):
        save_head(trained(name), tmp_path / "head", FACTS)
    save_head(trained("softmax"), tmp_path / "fresh", FACTS)
    assert contents(tmp_path / "head") == contents(tmp_path / "fresh")


def rewrite(folder: Path, change: Callable[[Any], Any]) -> None:
    path = folder / "head.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def set_settings(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda d: d | {"settings": d["settings"] | changes})


def without(key: str) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda d: {k: v for k, v in d.items() if k != key})


def set_arrays(data: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "arrays.npz"
        path.write_bytes(data(path.read_bytes()))

    return change


def only_arrays(*kept: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with np.load(folder / "arrays.npz") as stored:
            arrays = {name: stored[name] for name in stored.files if name in kept}
        np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]

    return change


def npy(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as stored:
        return stored.read("W0.npy")


def flipped(data: bytes) -> bytes:
    """One bit of the first array."""
    place = data.index(npy(data)) + 200
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


BROKEN: dict[str, Callable[[Path], Any]] = {
    "no JSON": lambda folder: (folder / "head.json").write_text("{"),
    "no text": lambda folder: (folder / "head.json").write_bytes(b"\xff\xfe{}"),
    "a list": lambda folder: rewrite(folder, lambda d: [d]),
    "no settings": without("settings"),
    "no history": without("history"),
    "no choice": without("chosen"),
    "no facts": without("facts"),
    "unknown kind": set_settings(kind="forest"),
    "kind that is no name": set_settings(kind=["mlp"]),
    "other kind": set_settings(kind="softmax"),
    "quite another kind": set_settings(kind="logistic"),
    "unknown scaling": set_settings(scaling="cubic"),
    "setting out of range": set_settings(dropout=1.5),
    "unknown setting": set_settings(momentum=0.9),
    "arrays cut short": set_arrays(lambda data: data[:-200]),
    "arrays cut shorter": set_arrays(lambda data: data[:100]),
    "empty arrays": set_arrays(lambda _: b""),
    "text for arrays": set_arrays(lambda _: b"no arrays at all"),
    "one array bare": set_arrays(npy),
    "flipped bit": set_arrays(flipped),
    "no weights": only_arrays("classes", "mean", "scale"),
    "no bias": only_arrays("classes", "W0", "W1", "b1", "mean", "scale"),
    "no classes": only_arrays("W0", "b0", "W1", "b1", "mean", "scale"),
    "no scale": only_arrays("classes", "W0", "b0", "W1", "b1", "mean"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_folder_is_told(tmp_path: Path, fault: str) -> None:
    folder = saved(tmp_path)
    BROKEN[fault](folder)
    with pytest.raises(
        InputError, match=rf"^{folder}: not a saved head: .*; run `dvc repro`$"
    ) as error:
        load_head(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("missing", ["head.json", "arrays.npz"])
def test_missing_file_is_told(tmp_path: Path, missing: str) -> None:
    folder = saved(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(
        InputError, match=rf"no trained head \({folder / missing} is missing\); run `dvc repro`$"
    ):
        load_head(folder)


def test_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent: no trained head .*; run `dvc repro`$"):
        load_head(tmp_path / "absent")


def test_loading_executes_nothing(tmp_path: Path) -> None:
    class Deed:
        def __reduce__(self) -> Any:
            return (Path.mkdir, (tmp_path / "victim",))

    folder = saved(tmp_path)
    with np.load(folder / "arrays.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(folder / "arrays.npz", **arrays | {"b1": np.array([Deed()])})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"not a saved head: .*allow_pickle"):
        load_head(folder)
    assert not (tmp_path / "victim").exists()
