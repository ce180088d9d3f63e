"""Work by other processes and by a Dask cluster: what comes out is what one process makes."""

import json
import operator
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Workspace
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from dask import config as dask_config
from dask_cluster import Cluster, cluster
from stores import digests

from pipeline.errors import InputError
from stages import cluster as cluster_module
from stages import workers


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> Workspace:
    """A workspace whose features one process has made, with all of its heads' trials to come."""
    workspace = Workspace(tmp_path_factory.mktemp("workers") / "project").set_up(drawn)
    workspace.set("store", shard_rows=16, chunk_rows=16)
    workspace.set("heads.softmax", epochs=4, learning_rate=[0.03, 0.1], seeds=[0])
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


@pytest.mark.slow
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


def begun(
    workspace: Workspace, dask: Cluster, shards: int
) -> tuple[subprocess.Popen[str], list[Path]]:
    """An extraction by the cluster, and its shards, once there are so many."""
    extraction = subprocess.Popen(
        [sys.executable, "-m", "stages.extract"],
        cwd=workspace.root,
        env=workspace.env(FC7CACHE_WORKERS=dask.address),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while len(whole := list(workspace.root.glob("scratch/*/*.zarr/fc7/c/*/0"))) < shards:
        assert extraction.poll() is None, extraction.communicate()[0]
        time.sleep(0.01)
    return extraction, whole


def test_a_worker_of_a_cluster_is_killed_at_work_and_nothing_is_lost(
    elsewhere: Workspace, prepared: Workspace, dask: Cluster
) -> None:
    doomed, _ = (dask.add_worker(elsewhere.root) for _ in range(2))
    extraction, whole = begun(elsewhere, dask, shards=4)
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


def test_a_run_with_other_code_leaves_the_workers_as_they_are(
    dask: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = dask.add_worker(ROOT)
    monkeypatch.setenv("FC7CACHE_WORKERS", dask.address)
    with monkeypatch.context() as mistaken:
        mistaken.setattr(workers, "_ENVIRONMENT", workers._ENVIRONMENT | {"backend": "jax"})
        with pytest.raises(InputError, match="has backend tensorflow, not jax: start the workers"):
            answers(os.getpid)
    assert answers(os.getpid) == [worker.pid]


def answers(function: Callable[..., Any], *tasks: tuple[Any, ...]) -> list[Any]:
    return list(workers.each(function, tasks or [()], ordered=True))


def test_a_cluster_without_the_project_is_told(
    dask: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FC7CACHE_WORKERS", dask.address)
    monkeypatch.setattr(cluster_module, "_WAIT_WORKER_S", 0.5)
    with pytest.raises(InputError, match="has no workers; start some with"):
        answers(os.getpid)
    hide = "import sys\nsys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f)]\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    dask.add_worker(tmp_path)
    monkeypatch.setattr(cluster_module, "_WAIT_WORKER_S", 60)
    with pytest.raises(InputError, match="need this project installed, and 1 of 2 have not"):
        answers(os.getpid)


def test_results_that_are_lost_with_their_worker_are_made_anew(
    dask: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FC7CACHE_WORKERS", dask.address)
    gate = tmp_path / "gate"
    wait = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.05)"
    pair = [dask.add_worker(ROOT) for _ in range(2)]
    with distributed.Client(dask.address) as client:
        client.wait_for_workers(2, timeout=60)
        large = b"x" * 100_000
        tasks = [(exec, wait), *[(eval, "__import__('os').getpid()", {"x": large})] * 3]

        def kill_the_one_that_has_results() -> int:
            while sum(map(len, client.has_what().values())) < 3:
                time.sleep(0.05)
            pids = client.run(os.getpid)
            (idle,) = (pids[name] for name, busy in client.processing().items() if not busy)
            holder, other = sorted(pair, key=lambda worker: worker.pid != idle)
            holder.kill()
            gate.touch()
            return other.pid

        with ThreadPoolExecutor() as pool:
            left = pool.submit(kill_the_one_that_has_results)
            found = list(workers.each(operator.call, tasks, ordered=True))
        assert found == [None, *[left.result()] * 3]


def test_a_worker_that_does_not_answer_is_told(
    dask: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FC7CACHE_WORKERS", dask.address)
    worker = dask.add_worker(ROOT)
    assert answers(os.getpid) == [worker.pid]
    worker.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(cluster_module, "_WAIT_WORKER_S", 1)
    with pytest.raises(InputError, match="does not answer within 1 s; stop it, and run again"):
        answers(os.getpid)
    worker.send_signal(signal.SIGCONT)
    monkeypatch.setattr(cluster_module, "_WAIT_WORKER_S", 60)
    assert answers(os.getpid) == [worker.pid]


def test_a_cluster_that_goes_away_is_told(dask: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FC7CACHE_WORKERS", dask.address)
    worker = dask.add_worker(ROOT)
    found = workers.each(time.sleep, [(0,), (60,)], ordered=True)
    next(found)
    worker.kill()
    monkeypatch.setattr(cluster_module, "_WAIT_WORKER_S", 2)
    with pytest.raises(InputError, match="has no workers any more"):
        next(found)


def test_a_scheduler_that_goes_away_is_told_in_one_line(
    elsewhere: Workspace, dask: Cluster
) -> None:
    dask.add_worker(elsewhere.root)
    extraction, _ = begun(elsewhere, dask, shards=1)
    dask.kill_scheduler()
    printed, _ = extraction.communicate(timeout=120)
    assert extraction.returncode == 2, printed
    *_, last = printed.splitlines()
    assert "went away; what its workers had finished is kept: run again" in last
    assert "Traceback" not in printed


def test_workers_that_are_killed_again_and_again_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as found:
        monkeypatch.setenv("FC7CACHE_WORKERS", found.address)
        found.add_worker(ROOT)
        with pytest.raises(InputError, match="workers of the cluster were killed again and again"):
            answers(os.abort)
    monkeypatch.setenv("FC7CACHE_WORKERS", "2")
    with pytest.raises(InputError, match="a process that works on it was killed"):
        answers(os.abort)


def test_a_cluster_with_certificates_wants_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = certificate_in(tmp_path)
    named = {"ca_file": certificate, "cert": certificate, "key": key}
    options = [f"--tls-{name.replace('_', '-')}={path}" for name, path in named.items()]
    with cluster(tmp_path, tls=options) as found:
        assert found.address.startswith("tls://")
        monkeypatch.setenv("FC7CACHE_WORKERS", found.address)
        with pytest.raises(InputError, match=r"no Dask scheduler answers at tls://.*TLS"):
            answers(os.getpid)
        worker = found.add_worker(ROOT)
        config = {
            f"distributed.comm.tls.{side}.{name}": str(path)
            for side in ("client",)
            for name, path in named.items()
            if name != "ca_file"
        }
        with dask_config.set({"distributed.comm.tls.ca-file": str(certificate), **config}):
            assert answers(os.getpid) == [worker.pid]


def certificate_in(folder: Path) -> tuple[Path, Path]:
    """A key, and a certificate that is its own authority."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, *plain))
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    return folder / "key.pem", folder / "certificate.pem"


def test_a_sweep_by_a_cluster_finds_the_same(
    elsewhere: Workspace, prepared: Workspace, dask: Cluster
) -> None:
    shutil.copytree(prepared.root / "data/features.zarr", elsewhere.root / "data/features.zarr")
    dask.add_worker(elsewhere.root)
    sweeps = []
    for where in ("1", dask.address):
        scratch = str(elsewhere.root / f"scratch-{len(sweeps)}")
        env = {"FC7CACHE_WORKERS": where, "FC7CACHE_SCRATCH": scratch}
        elsewhere.run("stages.train", "--head", "nearest_mean", **env)
        sweeps.append(pd.read_csv(elsewhere.root / "results/sweeps/nearest_mean.csv"))
    ours, theirs = (sweep.drop(columns="seconds") for sweep in sweeps)
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-3)


@pytest.mark.slow
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


def test_a_port_that_says_nothing_is_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "_WAIT_SCHEDULER_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("FC7CACHE_WORKERS", address)
        with pytest.raises(InputError, match=rf"no Dask scheduler answers at {address} \(none wit"):
            answers(os.getpid)
