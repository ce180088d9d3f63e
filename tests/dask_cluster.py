"""A Dask cluster of processes on the loopback interface, for tests."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

QUIET = {"DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__ENABLED": "false"}


class Cluster:
    """A scheduler, and workers that nobody revives when they are killed."""

    def __init__(self, folder: Path, *, tls: Sequence[str] = (), **env: str) -> None:
        self._folder, self._tls = folder, tls
        file = folder / "scheduler.json"
        scheduler = ("--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
        self._processes = [self._start("scheduler", *scheduler, *tls, env=env)]
        while not file.exists():
            assert self._processes[0].poll() is None, (folder / "scheduler.log").read_text()
            time.sleep(0.05)
        self.address: str = json.loads(file.read_text())["address"]

    def add_worker(self, root: Path, **env: str) -> subprocess.Popen[bytes]:
        """Start one that has the project's code at ``root``, and works in a folder of its own."""
        name = f"worker-{len(self._processes)}"
        alone = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--death-timeout", "60")
        folder = self._folder / name
        folder.mkdir()
        env = {"PYTHONPATH": str(root)} | env
        given = (self.address, *alone, *self._tls)
        process = self._start("worker", *given, log=name, cwd=folder, env=env)
        self._processes.append(process)
        return process

    def _start(
        self,
        *args: str,
        log: str = "scheduler",
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        with (self._folder / f"{log}.log").open("wb") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *args],
                cwd=cwd,
                env=os.environ | QUIET | (env or {}),
                stdout=file,
                stderr=file,
            )

    def kill_scheduler(self) -> None:
        self._processes[0].kill()

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()


@contextmanager
def cluster(folder: Path, *, tls: Sequence[str] = (), **env: str) -> Iterator[Cluster]:
    """A scheduler without workers; everything is stopped at the end.

    Args:
        folder: For logs and workers.
        tls: Options that name certificates.
        env: Of the scheduler.
    """
    found = Cluster(folder, tls=tls, **env)
    try:
        yield found
    finally:
        found.stop()
