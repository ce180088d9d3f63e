"""Choosing settings: on tracks that were not trained on, and trials once run are kept."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import Workspace
from heads import HEADS, X, Y, fresh
from scipy.special import softmax

from pipeline.head import Head, fit_temperature, nll_of
from pipeline.saved import settings_of
from pipeline.selection import Data, Job, Outcome, alike, refit, select, trial
from pipeline.splits import Fold, split_by_frame
from stages import trials
from stages.trials import identity_of, remembered


def unwatched(_: str) -> None: ...


LABEL = np.searchsorted((1, 12, 14, 38), Y)
DATA_CLASSES = 6  # two more than there are: a class may lack training rows
FOLDS = [
    (np.flatnonzero(np.arange(len(X)) % 3 != part), np.flatnonzero(np.arange(len(X)) % 3 == part))
    for part in range(3)
]


def data() -> Data:
    return Data([X], LABEL, DATA_CLASSES)


def ridges(*alphas: float, scaling: str = "sqrt_l2") -> list[Head]:
    return [fresh("ridge", alpha=alpha, scaling=scaling) for alpha in alphas]


def plain_outcome(head: Head, train: Any, val: Any) -> tuple[float, Any]:
    """The slow twin: fit on one part, ask about the other."""
    fitted = fresh(head.kind, **settings_of(head)).fit([X[train]], LABEL[train])
    scores = fitted.scores([X[val]])
    return float((fitted.classes_[scores.argmax(axis=1)] == LABEL[val]).mean()), scores


def test_scores_of_several_views_are_averaged_and_only_the_first_is_trained_on() -> None:
    train, val = FOLDS[0]
    noise = np.random.default_rng(0).normal(0, 0.3, (2, *X.shape)).astype(np.float32)
    seen = Data([X], LABEL, DATA_CLASSES, others=[[X + more] for more in noise])
    head = fresh("ridge", alpha=0.1)
    (found,) = trial(Job([head], train, val), seen, unwatched)
    fitted = fresh("ridge", alpha=0.1).fit([X[train]], LABEL[train])
    views = [[view[val]] for view in (X, *(X + noise))]
    expected = np.mean([fitted.scores(view) for view in views], axis=0)
    np.testing.assert_allclose(found.scores[:, :4], expected, rtol=1e-4, atol=1e-4)
    assert abs(found.scores[:, :4] - fitted.scores(views[0])).max() > 0.01
    proba = fitted.predict_proba(*views)
    np.testing.assert_allclose(proba, softmax(expected, axis=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_a_trial_is_a_fit_and_a_look_at_other_rows(name: str) -> None:
    train, val = FOLDS[0]
    (found,) = trial(Job([HEADS[name]], train, val), data(), unwatched)
    accuracy, scores = plain_outcome(HEADS[name], train, val)
    assert found.accuracy == accuracy
    np.testing.assert_allclose(found.scores[:, :4], scores, rtol=1e-4, atol=1e-4)
    assert (found.scores[:, 4:] == -np.inf).all()
    expected = nll_of(scores, LABEL[val], fit_temperature(scores, LABEL[val]))
    assert found.nll == pytest.approx(expected, rel=1e-3)
    assert not hasattr(HEADS[name], "classes_")  # the candidate itself is left as it was


def test_every_candidate_of_a_path_gets_its_own_outcome() -> None:
    train, val = FOLDS[0]
    alphas = (10.0, 0.01, 1.0)  # in no order
    candidates = ridges(*alphas)
    found = trial(Job(candidates, train, val), data(), unwatched)
    for candidate, outcome in zip(candidates, found, strict=True):
        accuracy, _ = plain_outcome(candidate, train, val)
        assert outcome.accuracy == pytest.approx(accuracy, abs=0.03)


def test_the_best_mean_over_folds_is_chosen() -> None:
    candidates = [*ridges(0.01, 1000.0), *ridges(0.01, 1.0, scaling="none")]
    told: list[int] = []
    found = select(candidates, FOLDS, data(), told=lambda place, _: told.append(place))
    means = [
        np.mean([plain_outcome(head, train, val)[0] for train, val in FOLDS]) for head in candidates
    ]
    assert found.chosen == int(np.argmax(means))
    assert found.best is candidates[found.chosen]
    assert sorted(told) == sorted([0, 1, 2, 3] * 3)
    for mine, expected in zip(found.outcomes, means, strict=True):
        assert np.mean([outcome.accuracy for outcome in mine]) == pytest.approx(expected)


def test_each_row_is_scored_by_a_model_that_never_saw_it() -> None:
    found = select(ridges(0.1), FOLDS, data())
    assert sorted(found.rows) == list(range(len(X)))
    assert found.scores.shape == (len(X), DATA_CLASSES)
    for train, val in FOLDS:
        _, scores = plain_outcome(found.best, train, val)
        mine = np.isin(found.rows, val)
        np.testing.assert_allclose(found.scores[mine][:, :4], scores, atol=1e-4)
    assert found.temperature == fit_temperature(found.scores, LABEL[found.rows])


def test_the_first_of_equals_is_chosen() -> None:
    same = ridges(0.1)[0]
    assert select([same, same.copy(), same.copy()], FOLDS, data()).chosen == 0


def test_what_one_fit_can_serve_is_put_together() -> None:
    mixed = [*ridges(1.0), *ridges(1.0, scaling="none"), *ridges(2.0)]
    assert alike(mixed) == [[1], [0, 2]]
    softmaxes = [fresh("softmax", learning_rate=rate) for rate in (0.1, 0.2)]
    assert alike(softmaxes) == [[0], [1]]
    scalings = [fresh("nearest_mean", scaling=kind) for kind in ("l2", "none", "l2", "none")]
    assert alike(scalings) == [[0, 2], [1, 3]]


def test_a_scaling_shared_is_not_a_scaling_mixed_up() -> None:
    shared = data()
    for scaling in ("l2", "none", "l2"):
        for train, val in FOLDS:
            candidate = fresh("ridge", scaling=scaling)
            (once,) = trial(Job([candidate], train, val), shared, unwatched)
            (alone,) = trial(Job([candidate], train, val), data(), unwatched)
            np.testing.assert_array_equal(once.scores, alone.scores)


def test_refits_are_on_all_rows_once_a_seed() -> None:
    candidate = fresh("softmax")
    found = select([candidate], FOLDS[:1], data())
    heads = refit(found, [3, 4], data(), unwatched)
    assert [head.seed for head in heads] == [3, 4]  # type: ignore[attr-defined]
    for head, seed in zip(heads, (3, 4), strict=True):
        expected = fresh("softmax", seed=seed).fit([X], LABEL)
        np.testing.assert_array_equal(head.scores([X]), expected.scores([X]))
        assert head.temperature_ == found.temperature
    assert candidate.seed == 0  # type: ignore[attr-defined]
    (only,) = refit(select(ridges(0.1), FOLDS[:1], data()), [], data(), unwatched)
    np.testing.assert_array_equal(only.scores([X]), ridges(0.1)[0].fit([X], LABEL).scores([X]))


def test_a_fine_tuned_head_is_refitted_from_its_start() -> None:
    found = select([HEADS["fine_tuned"]], FOLDS[:1], data())
    (head,) = refit(found, [0], data(), unwatched)
    expected = fresh("fine_tuned").fit([X], LABEL)
    np.testing.assert_array_equal(head.scores([X]), expected.scores([X]))


def run_sweep(
    *candidates: Head, identity: str = "store", folds: Sequence[Fold] = FOLDS
) -> list[Outcome]:
    found = select(candidates, folds, data(), remembered(identity))
    return [outcome for mine in found.outcomes for outcome in mine]


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was really trained, in a scratch of its own."""
    monkeypatch.setenv("FC7CACHE_SCRATCH", str(tmp_path))
    done: list[str] = []
    original = Head.fit_path

    def noted(heads: Any, *rest: Any) -> Any:
        done.extend(head.kind for head in heads)
        return original(heads, *rest)

    monkeypatch.setattr(Head, "fit_path", staticmethod(noted))
    return done


def test_trials_once_run_are_not_run_again(fits: list[str]) -> None:
    first = run_sweep(fresh("softmax"), folds=FOLDS[:2])
    assert fits == ["softmax"] * 2
    again = run_sweep(fresh("softmax"), fresh("softmax", learning_rate=0.1), folds=FOLDS[:2])
    assert fits == ["softmax"] * 4  # of the wider sweep, only what is new
    for before, after in zip(first, again, strict=False):
        np.testing.assert_array_equal(before.scores, after.scores)
        assert (before.accuracy, before.history) == (after.accuracy, after.history)


def test_of_one_path_too_only_what_is_new_is_run(fits: list[str]) -> None:
    run_sweep(*ridges(0.1, 1.0))
    assert fits == ["ridge"] * 6
    run_sweep(*ridges(0.1, 0.5, 1.0))
    assert fits == ["ridge"] * 9


def test_what_jobs_have_in_common_is_run_once_and_goes_to_each(fits: list[str]) -> None:
    """As in a study two fractions may pick the same tracks."""
    heads = ridges(0.1, 10.0)
    jobs = [
        Job(heads[:1], *FOLDS[0]),
        Job(heads[:1], *FOLDS[0]),
        Job([heads[0], heads[1], heads[0]], *FOLDS[0]),
        Job(heads[1:], *FOLDS[1]),
        Job(heads, *FOLDS[1]),
    ]
    expected = [trial(job, data(), unwatched) for job in jobs]
    fits.clear()
    for _ in range(2):
        found = list(remembered("store")(jobs, data(), unwatched))
        assert len(fits) == 4  # two heads on two folds
        for mine, theirs in zip(found, expected, strict=True):
            for left, right in zip(mine, theirs, strict=True):
                np.testing.assert_allclose(left.scores, right.scores, rtol=1e-3, atol=1e-4)
                assert left.accuracy == pytest.approx(right.accuracy)


def test_all_that_sweeps_left_is_forgotten(fits: list[str], tmp_path: Path) -> None:
    run_sweep(fresh("nearest_mean"))
    (first, *others) = sorted((tmp_path / "trials").iterdir())
    left, begun = (first.with_name(f".{first.name}.{k:032x}.part") for k in range(2))
    for path in (left, begun):
        path.write_bytes(b"half")
    (tmp_path / "trials/notes.txt").write_text("somebody else's")
    now = time.time()
    os.utime(left, (now - 7200, now - 7200))  # its writer was killed; the other one is at work
    os.utime(first, (now + 60, now + 60))  # by the clock of another machine
    size = {path: path.stat().st_size for path in (first, left, *others)}
    assert trials.forget(1) == 0
    assert trials.forget(0) == size[left] + sum(size[path] for path in others)
    assert trials.forget(None) == size[first] > 0
    assert {path.name for path in (tmp_path / "trials").iterdir()} == {begun.name, "notes.txt"}


def test_what_a_trial_is_known_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of every module that can change an outcome, and what it runs on."""
    monkeypatch.setattr("stages.trials.pipeline", SimpleNamespace(__file__=str(tmp_path / "x")))
    store = SimpleNamespace(attrs={"digest": "abc"})

    def identity(kind: type[Head], **changes: Any) -> str:
        asked = SimpleNamespace(attrs=store.attrs | changes)
        return identity_of(asked, ["fc7"], kind)  # type: ignore[arg-type]

    names = ("head.py", "scaling.py", "selection.py", "streaming.py")
    for name in names:
        (tmp_path / name).write_text("once")
    before = identity(type(HEADS["ridge"]))
    assert before == identity(type(HEADS["ridge"]))
    assert before != identity(type(HEADS["mlp"]))  # of another module
    assert before != identity(type(HEADS["ridge"]), digest="abd")
    for name in names:
        (tmp_path / name).write_text("twice")
        assert identity(type(HEADS["ridge"])) != before
        (tmp_path / name).write_text("once")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert identity(type(HEADS["ridge"])) != before


def test_outcomes_come_back_as_they_were(fits: list[str]) -> None:
    for name in HEADS:
        before, after = (run_sweep(HEADS[name], folds=FOLDS[:1]) for _ in range(2))
        for left, right in zip(before, after, strict=True):
            np.testing.assert_array_equal(left.scores, right.scores)
            assert (left.accuracy, left.nll, left.history, left.seconds) == (
                right.accuracy,
                right.nll,
                right.history,
                right.seconds,
            )
    assert len(fits) == len(HEADS)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "pickle"])
def test_a_damaged_outcome_is_run_again(fits: list[str], tmp_path: Path, damage: str) -> None:
    whole = run_sweep(fresh("nearest_mean"))
    for path in (tmp_path / "trials").glob("*.npz"):
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(
            {
                "cut": data[:middle],
                "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
                "empty": b"",
                "pickle": pickle.dumps({"scores": 1}),
            }[damage]
        )
    again = run_sweep(fresh("nearest_mean"))
    assert len(fits) == 6
    for left, right in zip(whole, again, strict=True):
        np.testing.assert_array_equal(left.scores, right.scores)


@pytest.mark.parametrize("change", ["identity", "setting", "rows", "start"])
def test_trials_are_known_by_all_that_they_depend_on(fits: list[str], change: str) -> None:
    head, folds = fresh("fine_tuned", epochs=1), FOLDS[:1]
    run_sweep(head, folds=folds)
    count = len(fits)
    if change == "start":
        head.start_ = [(w + 1, b) for w, b in head.start_]  # type: ignore[attr-defined]
    if change == "setting":
        head = fresh("fine_tuned", epochs=1, dropout=0.2)
    if change == "rows":
        folds = [split_by_frame(LABEL, n_val=40, seed=0)]
    run_sweep(head, identity="other" if change == "identity" else "store", folds=folds)
    assert len(fits) > count


def test_a_killed_sweep_goes_on_at_the_trial(tmp_path: Path, finished: Workspace) -> None:
    """Killed by SIGKILL once two trials are on disk; the next run trains only the others."""
    rates = [0.001, 0.002, 0.003, 0.004, 0.005]
    finished.set("heads.softmax", learning_rate=rates, epochs=2, seeds=[0])
    scratch = tmp_path / "scratch"
    code = (
        "import os, signal, sys\n"
        "from stages import train\n"
        "select, limit = train.select, int(sys.argv.pop(1))\n"
        "def dying(candidates, folds, data, run, told, watch):\n"
        "    import pipeline.head\n"
        "    fit_path, begun = pipeline.head.Head.fit_path, []\n"
        "    def counted(heads, *rest):\n"
        "        begun.append(1)\n"
        "        if len(begun) > limit: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return fit_path(heads, *rest)\n"
        "    pipeline.head.Head.fit_path = staticmethod(counted)\n"
        "    try: return select(candidates, folds, data, run, told, watch)\n"
        "    finally:\n"
        "        pipeline.head.Head.fit_path = staticmethod(fit_path)\n"
        "        print('fits', len(begun))\n"
        "train.select = dying\n"
        "sys.argv = ['train', '--head', 'softmax']\n"
        "train.main()\n"
    )

    def train(limit: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, str(limit)],
            cwd=finished.root,
            env=finished.env(FC7CACHE_SCRATCH=str(scratch)),
            capture_output=True,
            text=True,
            timeout=300,
        )

    killed = train(2)
    assert killed.returncode == -9
    resumed = train(99)
    assert resumed.returncode == 0, resumed.stderr
    assert "fits 3" in resumed.stdout
    sweep = (finished.root / "results/sweeps/softmax.csv").read_text().splitlines()
    assert len(sweep) == 1 + len(rates)
