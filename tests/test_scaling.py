"""What heads do to the features first, against scikit-learn and the definitions."""

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler, normalize

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
    """Before centring, that is with the mean put back."""
    before = x.copy()
    scaling = Scaling(kind)
    out = scaling.fit_transform([x])
    assert out.dtype == np.float32
    assert not np.shares_memory(out, x)
    np.testing.assert_array_equal(scaling.transform([x]), out)
    np.testing.assert_array_equal(x, before)
    # The mean of the whole is zero, but for the float32 that it is kept in.
    assert (abs(out.mean(axis=0, dtype=np.float64)) <= 1e-6 * abs(out + scaling.mean_).max()).all()
    return out + scaling.mean_


@float_types
@settings(deadline=None)
@given(st.data())
def test_standardize_is_scikit_learns(dtype: Any, data: st.DataObject) -> None:
    x = data.draw(values(dtype))
    expected = StandardScaler().fit(x.astype(np.float64)).transform(x.astype(np.float64))
    expected[:, np.ptp(x, axis=0) == 0] = 0
    out = Scaling("standardize").fit_transform([x])
    # Mean and products are float32: errors of units in their last place, in deviations.
    deviation = x.std(axis=0, dtype=np.float64)
    size = abs(x).max(axis=0).astype(np.float64)
    slack = 3e-7 * size / np.where(deviation > 0, deviation, np.inf)
    constant = np.ptp(x, axis=0) == 0
    assert (abs(out - expected) <= 1e-5 * abs(expected) + 1e-6 + slack)[:, ~constant].all()


@float_types
@settings(deadline=None)
@given(st.data())
def test_l2_is_scikit_learns(dtype: Any, data: st.DataObject) -> None:
    x = data.draw(values(dtype))
    expected = normalize(x.astype(np.float64))
    np.testing.assert_allclose(scaled("l2", x), expected, rtol=1e-5, atol=3e-7)


@float_types
@settings(deadline=None)
@given(st.data())
def test_sqrt_l2_is_its_definition(dtype: Any, data: st.DataObject) -> None:
    x = data.draw(values(dtype))
    out = scaled("sqrt_l2", x)
    for row, got in zip(x.astype(np.float64), out, strict=True):
        total = sum(abs(value) for value in row) or 1
        expected = [np.sign(value) * (abs(value) / total) ** 0.5 for value in row]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=3e-7)


@float_types
@settings(deadline=None)
@given(st.data())
def test_no_scaling_changes_nothing(dtype: Any, data: st.DataObject) -> None:
    x = data.draw(values(dtype))
    np.testing.assert_allclose(scaled("none", x), x, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("kind", ["l2", "sqrt_l2"])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_lengths_neither_vanish_nor_overflow(kind: Kind, size: float) -> None:
    np.testing.assert_allclose(scaled(kind, np.full((1, 4), size, np.float32)), 0.5, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4, -3.3e-5])
def test_constant_feature_becomes_zero_also_where_it_varies_later(value: float) -> None:
    train = np.full((1001, 1), value, np.float32)
    later = np.array([[value], [value + 1]], np.float32)
    scaling = Scaling("standardize")
    scaling.fit_transform([train])
    assert not scaling.transform([later]).any()


def test_mean_and_deviation_are_of_the_training_rows() -> None:
    scaling = Scaling("standardize")
    scaling.fit_transform([np.array([[1.0], [3.0]], np.float32)])
    assert scaling.transform([np.array([[7.0]], np.float32)]) == [[5.0]]


@pytest.mark.parametrize("kind", SCALINGS)
def test_layers_are_scaled_each_by_itself_and_put_side_by_side(kind: Kind) -> None:
    rng = np.random.default_rng(0)
    one, two = rng.normal(5, 2, (9, 3)), rng.normal(-1, 300, (9, 2))
    together = Scaling(kind).fit_transform([one, two])
    apart = [Scaling(kind).fit_transform([block]) for block in (one, two)]
    np.testing.assert_allclose(together, np.hstack(apart), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", SCALINGS)
def test_components_are_scikit_learns(kind: Kind) -> None:
    rng = np.random.default_rng(0)
    # A spectrum that falls steeply: principal components of noise are any that one likes.
    mix = 0.5 ** np.arange(6)[:, None] * rng.standard_normal((6, 20))
    x, later = (
        (rng.standard_normal((rows, 6)) @ mix + 5 + 1e-3 * rng.standard_normal((rows, 20))).astype(
            np.float32
        )
        for rows in (60, 7)
    )
    whole, rotated = Scaling(kind), Scaling(kind, 4)
    plain, out = whole.fit_transform([x]), rotated.fit_transform([x])
    assert out.shape == (60, 4)
    pca = PCA(4, svd_solver="full").fit(plain)
    expected = pca.transform(plain)
    sign = np.sign((out * expected).sum(axis=0))
    np.testing.assert_allclose(out * sign, expected, atol=0.02 * abs(expected).max())
    got = rotated.transform([later]) * sign
    expected = pca.transform(whole.transform([later]))
    np.testing.assert_allclose(got, expected, atol=0.05 * abs(expected).max())


def test_there_are_no_more_components_than_rows_or_features() -> None:
    x = np.random.default_rng(0).standard_normal((5, 9)).astype(np.float32)
    assert Scaling("none", 100).fit_transform([x]).shape == (5, 5)
    assert Scaling("none", 100).fit_transform([x.T]).shape == (9, 5)


def test_components_are_the_same_each_time() -> None:
    x = np.random.default_rng(0).standard_normal((50, 30)).astype(np.float32)
    first, second = (Scaling("l2", 8).fit_transform([x]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
