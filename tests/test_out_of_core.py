"""Training on features that are never all in memory, against plain loops over arrays that are."""

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from heads import CLASSES, SCALINGS, X, Y, fresh
from stores import make_store

from cache.errors import DamagedError
from cache.spec import Layout
from cache.store import FeatureStore, open_store
from pipeline import backend
from pipeline.errors import InputError
from pipeline.head import Head
from pipeline.scaling import Kind, Scaling
from pipeline.selection import Data, Job, refit, select, trial
from pipeline.streaming import Streamed, batches, by_parts
from stages import sweep
from stages.candidates import candidates_of
from stages.params import load_params
from stages.rows import OnDisk, images_to_test, training_data
from stages.train import test_scores as scores_of_test_images

LABEL = np.searchsorted(CLASSES, Y)
SPLIT = np.where(np.arange(len(X)) % 5 == 3, "test", "train")
TRAINING = np.flatnonzero(SPLIT == "train")
N = len(TRAINING)
FOLD = np.flatnonzero(np.arange(N) % 3 != 1), np.flatnonzero(np.arange(N) % 3 == 1)
LAYERS = {"fc6": 5, "fc7": 7}
N_CLASSES = len(CLASSES)
BLOCKS = {"fc6": X[:, :5], "fc7": X[:, 5:]}


def unwatched(_: str) -> None: ...


def store_of(path: Path, shard_rows: int) -> FeatureStore:
    """The features of `heads`, in two layers; every fifth row is of the test set."""
    layout = Layout(len(X), LAYERS, shard_rows=shard_rows, chunk_rows=1)
    columns = {"image_id": np.arange(len(X)).astype(str), "label": LABEL, "split": SPLIT}
    make_store(path, layout, BLOCKS, columns=columns)
    return open_store(path)


def streaming(name: str, **changes: Any) -> Head:
    return fresh(name, out_of_core=True, **changes)


def order_of_epoch(rows: Any, shard_rows: int, seed: int, epoch: int) -> list[int]:
    """The slow twin: places among the rows (numbers in the store), shard after shard."""
    shard = [row // shard_rows for row in rows]
    rng = np.random.default_rng([seed, epoch])
    parts = [[k for k, s in enumerate(shard) if s == wanted] for wanted in sorted(set(shard))]
    order: list[int] = []
    for number in rng.permutation(len(parts)):
        order += rng.permutation(parts[number]).tolist()
    return order


def plain_training(
    head: Any, x: Any, y: Any, x_val: Any, y_val: Any, orders: list[list[int]]
) -> tuple[list[Any], list[dict[str, float]]]:
    """The in-memory twin: Keras's own loop over arrays, put in an epoch's order beforehand."""
    keras = backend.keras()
    keras.utils.set_random_seed(head.seed)
    last, hidden = keras.layers.Dense(4), []
    if head.kind == "mlp":
        hidden = [keras.layers.Dense(head.hidden, "relu"), keras.layers.Dropout(head.dropout)]
    model = keras.Sequential([keras.Input((x.shape[1],)), *hidden, last])
    steps = int(np.ceil(len(x) / head.batch_rows)) * head.epochs
    rate = keras.optimizers.schedules.CosineDecay(head.learning_rate, steps)
    model.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=head.weight_decay),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = []
    for order in orders:
        options = {"batch_size": head.batch_rows, "shuffle": False, "verbose": 0}
        told = model.fit(
            x[order], y[order], validation_data=(x_val, y_val), validation_batch_size=1024,
            **options,
        ).history  # fmt: skip
        history.append({key: value for key, (value,) in told.items()})
    return [layer.get_weights() for layer in model.layers if layer.weights], history


@pytest.mark.parametrize(
    ("name", "scaling", "shard_rows"),
    [
        ("softmax", "sqrt_l2", 7),
        ("softmax", "standardize", 3),
        ("mlp", "l2", 50),
        ("mlp", "standardize", 1000),
    ],
)
def test_weights_are_those_of_training_in_memory_bit_for_bit(
    tmp_path: Path, name: str, scaling: Kind, shard_rows: int
) -> None:
    store = store_of(tmp_path / "s.zarr", shard_rows)
    head = streaming(name, scaling=scaling, seed=5, epochs=3)
    rows, data = training_data(store, [*LAYERS], 1, N_CLASSES, on_disk=True)
    train, val = FOLD
    learnt, streamed, views = data.scaled(head, train, val)
    held_out = views[0], data.label[val]
    list(Head.fit_path([head], learnt, streamed, data.label[train], held_out))

    whole = Scaling(scaling)
    x = whole.fit_transform([block[TRAINING][train] for block in BLOCKS.values()])
    x_val = whole.transform([block[TRAINING][val] for block in BLOCKS.values()])
    for learned in whole.learned:
        np.testing.assert_array_equal(getattr(learnt, learned), getattr(whole, learned))
    orders = [order_of_epoch(rows[train], shard_rows, 5, epoch) for epoch in range(3)]
    assert orders[0] != orders[1]
    weights, history = plain_training(head, x, data.label[train], x_val, data.label[val], orders)
    for ours, theirs in zip(head.layers_, weights, strict=True):  # type: ignore[attr-defined]
        for left, right in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(left, right)
    for entry, told in zip(head.history_, history, strict=True):
        assert {key: entry[key] for key in told} == pytest.approx(told, rel=1e-5)


@pytest.mark.parametrize("name", ["softmax", "mlp", "fine_tuned"])
def test_rows_of_one_shard_are_as_good_as_an_array(tmp_path: Path, name: str) -> None:
    store = store_of(tmp_path / "s.zarr", 1000)
    head = streaming(name, epochs=2)
    _, data = training_data(store, [*LAYERS], 1, N_CLASSES, on_disk=True)
    scaling, x = data.training(head)
    (fitted,) = Head.fit_path([head], scaling, x, data.label)
    expected = streaming(name, epochs=2).fit(
        [block[TRAINING] for block in BLOCKS.values()], LABEL[TRAINING]
    )
    for key, value in expected.state().items():
        np.testing.assert_array_equal(fitted.state()[key], value)


def test_a_sweep_reads_the_store_and_finds_what_one_in_memory_finds(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s.zarr", 16)
    heads = [streaming("softmax", learning_rate=rate, epochs=3) for rate in (0.1, 0.0001)]
    found, refitted = [], []
    for on_disk in (True, False):
        _, rows = training_data(store, [*LAYERS], 1, N_CLASSES, on_disk=on_disk)
        assert isinstance(rows.blocks[0], np.ndarray) is not on_disk
        found.append(select(heads, [FOLD], rows))
        refitted.append(refit(found[-1], [3], rows, unwatched))
    assert found[0].chosen == found[1].chosen == 0
    np.testing.assert_array_equal(found[0].scores, found[1].scores)
    for one, other in zip(*refitted, strict=True):
        for key, value in one.state().items():
            np.testing.assert_array_equal(other.state()[key], value)
    test = np.flatnonzero(SPLIT == "test")
    pieces = [len(blocks[0]) for blocks in images_to_test(store, [*LAYERS], 0, heads[0])]
    assert pieces == np.bincount(test // 16).tolist()  # a piece a shard
    blocks = [block[test] for block in BLOCKS.values()]
    for head, scores in zip(
        refitted[0], scores_of_test_images(refitted[0], store, [*LAYERS], 0), strict=True
    ):
        np.testing.assert_allclose(scores, head.scores(blocks), rtol=1e-5, atol=1e-6)


def test_a_worker_elsewhere_reads_the_store_too(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s.zarr", 16)
    training = sweep.Training(store.address, store.attrs["digest"], tuple(LAYERS), 1, N_CLASSES)
    sweep._data.cache_clear()
    job = Job([streaming("softmax", epochs=2)], *FOLD)
    (there,) = sweep.trial_there(training, job)
    assert isinstance(
        sweep._data(training, on_disk=True).blocks[0], OnDisk
    )  # the one that was used
    assert sweep._data.cache_info().hits == 1
    (here,) = trial(job, training_data(store, [*LAYERS], 1, N_CLASSES, on_disk=True)[1], unwatched)
    np.testing.assert_array_equal(there.scores, here.scores)


def test_other_views_are_scored_too(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, X.shape).astype(np.float32)
    head, (train, val) = streaming("softmax", epochs=2), FOLD
    data = Data([X], LABEL, 4, [[X + noise]], part=np.arange(len(X)) // 9)
    (found,) = trial(Job([head], train, val), data, unwatched)
    scaling, x, _ = data.scaled(head, train, val)
    list(Head.fit_path([head], scaling, x, LABEL[train]))
    plain, noisy = (head.scores([view[val]]) for view in (X, X + noise))
    assert abs(plain - noisy).max() > 0.01
    np.testing.assert_allclose(found.scores, (plain + noisy) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("batch_rows", [1, 5, 32, 1000])
@pytest.mark.parametrize("shard_rows", [1, 7, 1000])
def test_batches_are_cut_from_the_order_whatever_the_parts(
    shard_rows: int, batch_rows: int, seed: int | None
) -> None:
    rows = np.flatnonzero(np.arange(len(X)) % 3)
    x = streamed(rows, shard_rows)
    y = np.arange(len(rows))
    rng = None if seed is None else np.random.default_rng([seed, 2])
    found = list(batches(x, y, batch_rows, rng))
    assert {len(labels) for _, labels in found[:-1]} <= {batch_rows}
    assert 0 < len(found[-1][1]) <= batch_rows
    order = np.concatenate([labels for _, labels in found]).tolist()
    expected = y.tolist() if seed is None else order_of_epoch(rows, shard_rows, seed, 2)
    assert order == expected
    np.testing.assert_array_equal(
        np.concatenate([features for features, _ in found]),
        x.scaling.transform([X[rows]])[order],
    )


def streamed(rows: Any, shard_rows: int, kind: Kind = "none") -> Streamed:
    scaling = Scaling(kind)
    x = Streamed(scaling, [X], rows, rows // shard_rows)
    scaling.fit(x.stored)
    return x


def test_rows_need_not_be_sorted() -> None:
    rows = np.random.default_rng(0).permutation(len(X))[:60]
    x = streamed(rows, 7)
    doubled = by_parts(lambda part: 2 * part, x)
    np.testing.assert_array_equal(doubled, 2 * x.scaling.transform([X[rows]]))
    assert x.shape == doubled.shape == (60, 12)


@pytest.mark.parametrize("kind", SCALINGS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_scaling_is_learnt_from_parts_as_from_all_rows(kind: Kind, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    spread = 10.0 ** np.arange(-3, 3)
    x = (rng.normal(1, 1, (1000, 6)) * spread).astype(dtype)
    x[:, 2] = np.float32(0.1)  # constant
    whole, parts = Scaling(kind), Scaling(kind)
    whole.fit_transform([x[:, :4], x[:, 4:]])
    ends = [0, 1, 300, 317, 1000]
    parts.fit(lambda: [[x[a:b, :4], x[a:b, 4:]] for a, b in pairwise(ends)])
    for name in whole.learned:
        np.testing.assert_array_max_ulp(getattr(parts, name), getattr(whole, name), 1)
    if kind == "standardize":
        assert parts.scale_[2] == 0


def test_components_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"components: expected None, got 3$"):
        Scaling("none", 3).fit(lambda: iter([[X]]))
    params = load_params(ROOT / "params.yaml")
    params.heads["softmax"]["out_of_core"] = True
    with pytest.raises(
        InputError,
        match=r"^params.yaml: heads.softmax: out_of_core: true needs components: null, since .*, "
        r"got 2048$",
    ):
        candidates_of(params, "softmax")


@pytest.mark.parametrize("when", ["training", "validation"])
def test_a_file_lost_while_it_trains_is_told_by_name(
    tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.gradient._SCORED_ROWS", 8)
    store = store_of(tmp_path / "s.zarr", 16)
    head = streaming("softmax", epochs=1, batch_rows=8)
    rows, data = training_data(store, [*LAYERS], 1, N_CLASSES, on_disk=True)
    scaling, x = data.training(head)
    # The last one read: Keras looks at the first batches itself, TensorFlow at the others.
    last = rows[order_of_epoch(rows, 16, 0, 0)[-1]] // 16 if when == "training" else 9
    (tmp_path / f"s.zarr/fc7/c/{last}/0").unlink()
    held_out = None
    if when == "validation":
        held_out = x, data.label
        scaling, x = Data([X[TRAINING]], data.label, 4).training(head)
    with pytest.raises(DamagedError, match=rf"fc7/c/{last}/0 lacks rows; run `fc7cache repair`$"):
        list(Head.fit_path([head], scaling, x, data.label, held_out))


def test_no_more_than_two_parts_are_read_ahead_of_use() -> None:
    asked: list[int] = []

    class Noted:
        shape = X.shape

        def __getitem__(self, rows: Any) -> Any:
            asked.append(int(rows[0]))
            return X[rows]

    scaling = Scaling("none")
    scaling.fit_transform([X])
    every = np.arange(len(X))
    parts: Iterator[Any] = Streamed(scaling, [Noted()], every, every // 10).parts()
    for used in range(1, 17):
        next(parts)
        assert len(asked) <= used + 1
    assert asked == list(range(0, 160, 10))


MEASURED = """
import re, sys
from pathlib import Path
import numpy as np
from heads import fresh
from cache.load import as_tf_data
from cache.spec import Layout
from cache.store import open_store
from cache.writer import create_store
from pipeline.selection import Data, select
from stages.rows import training_data

def peak():  # not getrusage's, which begins with that of the process which started this one
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

path = Path(sys.argv[1])
rows, width = 51200, 2048
layout = Layout(rows, {"fc7": width}, shard_rows=1024, chunk_rows=256)
label = np.arange(rows) % 4
split = np.full(rows, "train")
store = create_store(path, layout, {}, {"label": label, "split": split})
for shard in layout.shards:
    lo, hi = layout.bounds(shard)
    block = np.zeros((hi - lo, width), np.float32)
    block[np.arange(hi - lo), label[lo:hi]] = 1
    store.write(shard, {"fc7": block})
store.finish()
store = open_store(path)
head = fresh("softmax", out_of_core=True, scaling="l2", batch_rows=512, epochs=1)
small = Data([np.eye(160, width, dtype=np.float32)], label[:160], 4)
select([head], [(np.arange(80), np.arange(80, 160))], small)  # what Keras takes for itself
for _ in as_tf_data(store, "fc7").take(1): pass
before = peak()
_, data = training_data(store, ["fc7"], 1, 43, on_disk=head.streams)
fold = np.flatnonzero(np.arange(rows) % 5), np.flatnonzero(np.arange(rows) % 5 == 0)
found = select([head], [fold], data)
assert found.outcomes[0][0].accuracy > 0.9
print(peak() - before)
for _ in as_tf_data(store, "fc7", seed=0): pass
print(peak() - before)
head.out_of_core = False
_, data = training_data(store, ["fc7"], 1, 43, on_disk=head.streams)
data.training(head)
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_store(tmp_path: Path) -> None:
    """400 MB of features, in a process that may grow by a third of that."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path / "s.zarr")],
        cwd=ROOT / "tests",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    out_of_core, streamed, in_memory = map(float, done.stdout.split())
    assert out_of_core < 133
    assert streamed < 133
    assert in_memory > 700  # features, and scaled features: what is measured would show
