"""Linear heads with a solution that neither seed nor start can change."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, LinAlgWarning, solve
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from pipeline.errors import InputError
from pipeline.head import AffineHead, Count, Head, Labels, Positive, Watch
from pipeline.scaling import Floats


@dataclass(kw_only=True)
class LogisticHead(AffineHead, kind="logistic"):
    """Multinomial logistic regression with an L2 penalty, by lbfgs."""

    C: Positive  # inverse of the penalty
    tol: Positive  # largest gradient entry to stop at; the smaller the features, the smaller
    max_iter: Count

    def _fit(
        self, x: Floats, y: Labels, validation: tuple[Floats, Labels] | None, watch: Watch
    ) -> None:
        # From nothing each time: a start from another penalty's solution would be another head.
        model = LogisticRegression(C=self.C, tol=self.tol, max_iter=self.max_iter)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter is a setting
            model.fit(x, y)
        w, b = model.coef_.T.astype(np.float32), model.intercept_.astype(np.float32)
        if w.shape[1] == 1:  # of two classes, scikit-learn keeps the second's score
            w, b = np.concatenate([0 * w, w], axis=1), np.concatenate([0 * b, b])
        self.layers_ = [(w, b)]


@dataclass(kw_only=True)
class RidgeHead(AffineHead, kind="ridge"):
    """Least squares on targets +1 and -1 with an L2 penalty, in closed form.

    Let X (N, D) be centred, T (N, C) the targets, centred too, and a the penalty. Then
        W = (X'X + a I)^-1 X'T            where D <= N: one system of (D, D)
        W = X' (XX' + a I)^-1 T           else: one of (N, N)
    so heads that differ in a share the product. Each is solved by Cholesky's decomposition; an
    eigendecomposition, which would serve every a, takes as long as about ten of these.
    """

    path = "alpha"

    # Penalty, in units of the mean squared length of a training row: one grid fits every layer
    # and scaling, and single precision is enough for all of it.
    alpha: Positive

    def _fit_path(
        self,
        heads: Sequence[Head],
        x: Floats,
        y: Labels,
        validation: tuple[Floats, Labels] | None,
        watch: Watch,
    ) -> Iterator[Head]:
        target = np.where(y[:, None] == np.arange(y.max() + 1), np.float32(1), np.float32(-1))
        b = target.mean(axis=0)
        target -= b
        primal = x.shape[1] <= x.shape[0]
        watch("products of rows")
        gram = x.T @ x if primal else x @ x.T
        diagonal = np.diagonal(gram).copy()
        unit = float(diagonal.sum(dtype=np.float64)) / len(x) or 1.0
        right = x.T @ target if primal else target
        for head in heads:
            if not isinstance(head, RidgeHead):
                raise TypeError(f"expected ridges, got {type(head).__name__}")
            watch(f"alpha {head.alpha:g}")
            gram[np.diag_indices_from(gram)] = diagonal + np.float32(unit * head.alpha)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", LinAlgWarning)  # solved, but not to be believed
                    found = solve(gram, right, assume_a="pos", check_finite=False)
            except (LinAlgError, LinAlgWarning) as error:
                raise InputError(
                    f"a ridge cannot be solved in single precision with alpha {head.alpha:g}; "
                    "expected a larger one, 0.001 or more"
                ) from error
            head.layers_ = [(np.asarray(found if primal else x.T @ found, np.float32), b)]
            yield head

    def _fit(
        self, x: Floats, y: Labels, validation: tuple[Floats, Labels] | None, watch: Watch
    ) -> None:
        for _ in self._fit_path([self], x, y, validation, watch):
            pass
