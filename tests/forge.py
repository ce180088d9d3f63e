"""Extractions in processes of their own, started in milliseconds and killed on request.

A server imports everything once and forks a child for each extraction, so that hundreds of kills
take minutes. The base is a stand-in that needs no TensorFlow: a fixed projection of the pixels.
All else is the real thing: archives, reader, plan, scratch, lock, store.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from conftest import ROOT

from pipeline.eye import Eye

WIDTH, PX, BATCH = 24, 8, 16


class Forge:
    """The client's side."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        )

    def extract(
        self,
        root: Path,
        index: pd.DataFrame,
        *,
        kill_after: float | None = None,
        kill_with: signal.Signals = signal.SIGKILL,
        repair: bool = False,
        **env: str,
    ) -> dict[str, Any]:
        """Run one extraction of the index's rows into ``root/features.zarr``.

        Args:
            root: A folder with params.yaml; scratch lies in it unless env says otherwise.
            index: What to extract.
            kill_after: Seconds until the signal; None to let it end.
            kill_with: The signal.
            repair: Repair the store there, instead.
            env: Of the child.

        Returns:
            "status" (negative: the signal that ended it), "printed", and what extract returned.
        """
        index.to_csv(root / "index.csv", index=False)
        request = {
            "root": str(root),
            "kill_after": kill_after,
            "kill_with": int(kill_with),
            "repair": repair,
            "env": env,
        }
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    @property
    def pid(self) -> int:
        """Of the server, whose children extract."""
        return self._server.pid

    def close(self) -> None:
        self._server.communicate()


def features(pixels: np.ndarray) -> np.ndarray:
    """What the stand-in base makes of (n, PX, PX, 3) uint8."""
    weights = np.random.default_rng(0).standard_normal((PX * PX * 3, WIDTH), dtype=np.float32)
    flat = pixels.reshape(len(pixels), -1).astype(np.float32)
    return np.maximum(np.einsum("nd,dk->nk", flat, weights), 0)


class _StandInBase:
    input_px = PX
    views = 1
    eye = Eye(PX)
    network = SimpleNamespace(batch_rows=BATCH, warm_up=lambda: None)

    def __init__(self, params: Any) -> None:
        from stages.base import FrozenBase

        self.params, self._real, self._archives = params, FrozenBase, {}
        self.widths = dict.fromkeys(params.base.layers, WIDTH)

    def made_by(self) -> dict[str, Any]:
        from stages.params import stated

        return stated(self.params) | {"weights": "seeded"}

    def reader(self, index: pd.DataFrame) -> Any:
        return self._real.reader(self, index)  # type: ignore[arg-type]

    def forward(self, images: Any) -> Any:
        block: list[np.ndarray] = []
        for image in images:
            block.append(image)
            if len(block) == BATCH:
                yield self._features(block)
                block = []
        if block:
            yield self._features(block)

    def _features(self, block: list[np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(0.002)  # so that a kill falls anywhere in the run
        out = features(np.concatenate(block))  # of each image one view
        return dict.fromkeys(self.params.base.layers, out)


def _child(request: dict[str, Any]) -> int:
    from fsspec.config import conf, set_conf_env

    from cache.store import FeatureStore
    from cache.verify import verify
    from pipeline import backend
    from pipeline.index import read_index
    from stages import extract, repair, shards
    from stages.console import run
    from stages.params import load_params

    root = Path(request["root"])
    os.chdir(root)
    os.environ.update({"FC7CACHE_SCRATCH": "scratch"} | request["env"])
    set_conf_env(conf)  # as if started in this environment
    os.dup2(os.open("printed.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(1, 2)
    backend.runtime = lambda: {"device": "cpu", "backend": "none"}  # type: ignore[assignment]
    backend.accelerated = lambda: False  # type: ignore[assignment]
    shards.usual_workers = lambda: 2  # as kills are timed for
    shards.load_base = repair.load_base = _StandInBase  # type: ignore[assignment]
    repair.INDEX = Path("index.csv")

    def main() -> None:
        if request["repair"]:
            store = FeatureStore("features.zarr")
            summary = repair.repair(store, load_params(), verify(store), Path("features.zarr"))
        else:
            index = read_index(Path("index.csv"))
            summary = extract.extract(load_params(), index, Path("features.zarr"))
        Path("summary.json").write_text(json.dumps(summary))

    try:
        run(main)
    except SystemExit as end:
        sys.stdout.flush()
        return int(end.code or 0)


def _serve() -> None:
    import s3fs

    import pipeline.images
    import stages.extract
    import stages.repair

    del pipeline, s3fs, stages
    for line in sys.stdin:
        request = json.loads(line)
        root = Path(request["root"])
        summary, printed = root / "summary.json", root / "printed.txt"
        summary.unlink(missing_ok=True)
        printed.write_text("")
        child = os.fork()
        if not child:
            status = 70
            try:
                status = _child(request)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(status)
        if request["kill_after"] is not None:
            time.sleep(request["kill_after"])
            os.kill(child, request["kill_with"])
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answer = json.loads(summary.read_text()) if summary.is_file() else {}
        answer |= {"status": status, "printed": printed.read_text()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
