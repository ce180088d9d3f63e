"""Time of stage two: heads with their default grids, and one changed head compared again.

Run in a workspace in which `dvc repro` has run (its params.yaml says of which features):

    python benchmarks/heads.py [HEAD …]

Trials are not taken from scratch here. Each figure is wall time of a whole process, its start and
the reading of the store included; machines are noisy, so look at ratios.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

from cache.store import open_store

# One setting of each head that is in no grid, so that nothing is remembered.
CHANGES = {
    "softmax": {"scaling": "sqrt_l2", "learning_rate": 0.05, "weight_decay": 0},
    "mlp": {"scaling": "sqrt_l2", "hidden": 768, "dropout": 0.4, "learning_rate": 0.002},
    "logistic": {"scaling": "sqrt_l2", "C": 5000},
    "ridge": {"scaling": "sqrt_l2", "alpha": 0.2},
}


def seconds(command: list[str], scratch: str) -> float:
    """Wall time of a command that succeeds."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", *command],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PATH": path, "FC7CACHE_SCRATCH": scratch},
    )
    return time.perf_counter() - start


def main() -> None:
    """Print two times for each head."""
    layout = open_store("data/features.zarr").layout
    print(f"{layout.rows:,} rows, {layout.layers}, {os.cpu_count()} CPU cores")
    kept = {name: Path(name).read_text() for name in ("params.yaml", "dvc.lock")}

    def restore() -> None:
        for name, text in kept.items():
            Path(name).write_text(text)
        subprocess.run([sys.executable, "-m", "dvc", "checkout", "--force", "--quiet"], check=True)

    total = 0.0
    try:
        for name in sys.argv[1:] or ["softmax", "mlp", "logistic"]:
            with tempfile.TemporaryDirectory() as scratch:
                grid = seconds(["stages.train", "--head", name], scratch)
            restore()
            yaml = YAML()
            document = yaml.load(kept["params.yaml"])
            document["heads"][name] |= CHANGES[name]
            yaml.dump(document, Path("params.yaml"))
            with tempfile.TemporaryDirectory() as scratch:
                one = seconds(["dvc", "repro", "--no-run-cache", f"train@{name}"], scratch)
                one += seconds(["stages.compare"], scratch)
            restore()
            total += grid
            print(f"{name}: {grid:.0f} s with its grid; {one:.0f} s for one setting and compare")
    finally:
        restore()
    print(f"together {total:.0f} s with their grids")


if __name__ == "__main__":
    if not Path("data/features.zarr").is_dir():
        sys.exit("expected data/features.zarr here; run `dvc repro` first")
    main()
