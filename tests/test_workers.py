"""Work by other processes and by a Dask cluster: what comes out is what one process makes."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import distributed
import numpy as np
import pytest
from conftest import ROOT, Workspace
from dask_cluster import Cluster, cluster
from stores import digests

from pipeline.errors import InputError
from stages import workers


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> Workspace:
    """A workspace whose features one process has made, with all of its heads' trials to come."""
    workspace = Workspace(tmp_path_factory.mktemp("workers") / "project").set_up(drawn)
    workspace.set("store", shard_rows=16, chunk_rows=16)
    workspace.run("stages.prepare")
    workspace.run("stages.extract")
    return workspace


@pytest.fixture
def elsewhere(tmp_path: Path, prepared: Workspace) -> Workspace:
    """A copy of it, with no features."""
    shutil.copytree(prepared.root, tmp_path / "project")
    workspace = Workspace(tmp_path / "project")
    shutil.rmtree(workspace.root / "scratch")
    shutil.rmtree(workspace.root / "data/features.zarr")
    return workspace


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    with cluster(folder) as found:
        yield found


def features(workspace: Workspace) -> dict[str, str]:
    return digests(workspace.root / "data/features.zarr")


def test_processes_make_the_same_store_and_the_same_sweep(
    elsewhere: Workspace, prepared: Workspace
) -> None:
    elsewhere.run("stages.extract", FC7CACHE_WORKERS="2")
    assert features(elsewhere) == features(prepared)
    summary = json.loads((elsewhere.root / "results/extract.json").read_text())
    assert (summary["forwarded"], summary["reused"]) == (290, 0)
    assert summary["time"]["network"] > 0
    assert "0 of 290 images to forward" in elsewhere.run("stages.extract", FC7CACHE_WORKERS="2")
    assert not list((elsewhere.root / "scratch/trials").glob("*"))
    for workspace, count in ((prepared, "1"), (elsewhere, "2")):
        for head in ("ridge", "softmax"):
            workspace.run("stages.train", "--head", head, FC7CACHE_WORKERS=count)
    # Not to the bit: linear algebra rounds by the number of its threads, and workers have fewer.
    for head in ("ridge", "softmax"):
        ours, theirs = (
            json.loads((workspace.root / f"results/training/{head}.json").read_text())
            for workspace in (prepared, elsewhere)
        )
        assert ours["settings"] == theirs["settings"]
        assert ours["temperature"] == pytest.approx(theirs["temperature"], rel=1e-3)
        for left, right in zip(ours["sweep"], theirs["sweep"], strict=True):
            assert left["accuracy"] == pytest.approx(right["accuracy"], abs=0.03)
            assert left["nll"] == pytest.approx(right["nll"], rel=1e-3)
        ours, theirs = (
            np.load(workspace.root / f"results/probabilities/{head}.npz")
            for workspace in (prepared, elsewhere)
        )
        np.testing.assert_array_equal(ours["validation_id"], theirs["validation_id"])
        np.testing.assert_allclose(ours["validation"], theirs["validation"], atol=1e-3)
    assert len(list((elsewhere.root / "scratch/trials").glob("*"))) > 5


def test_a_worker_of_a_cluster_is_killed_at_work_and_nothing_is_lost(
    elsewhere: Workspace, prepared: Workspace, dask: Cluster
) -> None:
    doomed, _ = (dask.add_worker(elsewhere.root) for _ in range(2))
    extraction = subprocess.Popen(
        [sys.executable, "-m", "stages.extract"],
        cwd=elsewhere.root,
        env=elsewhere.env(FC7CACHE_WORKERS=dask.address),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    shards = "scratch/*/*.zarr/fc7/c/*/0"
    while len(whole := list(elsewhere.root.glob(shards))) < 4:
        assert extraction.poll() is None, extraction.communicate()[0]
        time.sleep(0.01)
    doomed.kill()
    before = {path: path.read_bytes() for path in whole}
    printed, _ = extraction.communicate(timeout=120)
    assert extraction.returncode == 0, printed
    assert features(elsewhere) == features(prepared)
    assert {path: path.read_bytes() for path in whole} == before


def refused(workspace: Workspace, dask: Cluster) -> str:
    printed = workspace.run("stages.extract", status=2, FC7CACHE_WORKERS=dask.address)
    assert "Traceback" not in printed
    assert not (workspace.root / "data/features.zarr").exists()
    return printed


def test_a_worker_with_other_code_is_refused_and_stays_so(
    elsewhere: Workspace, dask: Cluster
) -> None:
    other = elsewhere.root.parent / "other"
    shutil.copytree(elsewhere.root, other)
    dask.add_worker(other)
    frozen = other / "pipeline/frozen.py"
    text = frozen.read_text()
    with distributed.Client(dask.address) as client:  # the worker has taken note of its code
        assert client.submit(workers.elsewhere).result() is False
    frozen.write_text(text + "# an edit\n")
    assert re.search(r"error: a worker on \S+ has code ", refused(elsewhere, dask))
    frozen.write_text(text)  # but what was imported since was the edited one
    assert re.search(r"error: a worker on \S+ has code ", refused(elsewhere, dask))


def test_a_worker_with_another_backend_is_refused(elsewhere: Workspace, dask: Cluster) -> None:
    dask.add_worker(elsewhere.root, KERAS_BACKEND="jax")
    assert "has backend jax, not tensorflow" in refused(elsewhere, dask)


def test_a_cluster_without_the_project_is_told(
    dask: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FC7CACHE_WORKERS", dask.address)
    monkeypatch.setattr(workers, "_WAIT_WORKER_S", 0.5)
    with pytest.raises(InputError, match="has no workers; start some with"):
        list(workers.each(os.getpid, [()], ordered=True))
    hide = "import sys\nsys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f)]\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    dask.add_worker(tmp_path)
    monkeypatch.setattr(workers, "_WAIT_WORKER_S", 60)
    with pytest.raises(InputError, match="need this project installed, and 1 of 2 have not"):
        list(workers.each(os.getpid, [()], ordered=True))


def test_a_cluster_that_goes_away_is_told(dask: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FC7CACHE_WORKERS", dask.address)
    worker = dask.add_worker(ROOT)
    answers = workers.each(time.sleep, [(0,), (60,)], ordered=True)
    next(answers)
    worker.kill()
    monkeypatch.setattr(workers, "_WAIT_WORKER_S", 2)
    with pytest.raises(InputError, match="has no workers any more"):
        next(answers)


def test_processes_of_many_cores_read_in_threads(elsewhere: Workspace, prepared: Workspace) -> None:
    """As on a machine with more cores than this one has, where reading is done by processes."""
    reading = elsewhere.root / "pipeline/reading.py"
    reading.write_text(reading.read_text().replace("_MOST_THREADS = 4", "_MOST_THREADS = 1"))
    elsewhere.run("stages.extract", FC7CACHE_WORKERS="2")
    assert features(elsewhere) == features(prepared)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("0", "expected a number of processes, or the address of a Dask scheduler"),
        ("many", "got 'many'"),
        ("tcp://127.0.0.1:1", "no Dask scheduler answers at tcp://127.0.0.1:1"),
    ],
)
def test_workers_that_cannot_be_had_are_told(elsewhere: Workspace, asked: str, said: str) -> None:
    printed = elsewhere.run("stages.extract", status=2, FC7CACHE_WORKERS=asked)
    assert said in printed
    assert "Traceback" not in printed
