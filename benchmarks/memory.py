"""Peak memory of `extract` and `verify` against the number of images.

Run from the root: .venv/bin/python benchmarks/memory.py [ROWS …]

Images are noise of 25 pixels, the base is the narrow AlexNet with seeded weights, so that the run
takes minutes; shards have their usual 2,048 rows. Each figure is the peak resident set of the
process, as the kernel counts it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from pipeline.archives import NAMES
from stages.demo import HEADER, checksums

ROOT = Path(__file__).resolve().parent.parent
TEST_ROWS = 100


def make_archives(folder: Path, rows: int) -> None:
    """Write archives with this many images of noise, the last TEST_ROWS of them as test set."""
    rng = np.random.default_rng(0)

    def image() -> bytes:
        return b"P6\n25 25\n255\n" + rng.bytes(25 * 25 * 3)

    files = dict.fromkeys(NAMES)
    for part, name in NAMES.items():
        files[part] = zipfile.ZipFile(folder / name, "w")
    lists: dict[str, list[str]] = {}
    for row in range(rows - TEST_ROWS):
        label, track = row % 43, row // 43 // 30
        name = f"{track:05}_{row // 43 % 30:05}.ppm"
        base = f"GTSRB/Final_Training/Images/{label:05}"
        files["train"].writestr(f"{base}/{name}", image())
        listed = lists.setdefault(f"{base}/GT-{label:05}.csv", [f"{HEADER};ClassId"])
        listed.append(f"{name};25;25;5;5;19;19;{label}")
    for name, lines in lists.items():
        files["train"].writestr(name, "\r\n".join(lines))
    lines = [f"{HEADER};ClassId"]
    for row in range(TEST_ROWS):
        files["test"].writestr(f"GTSRB/Final_Test/Images/{row:05}.ppm", image())
        lines.append(f"{row:05}.ppm;25;25;5;5;19;19;{row % 43}")
    files["test_labels"].writestr("GT-final_test.csv", "\r\n".join(lines))
    for file in files.values():
        file.close()


def peak_mib(*module: str) -> float:
    """Run ``python -m MODULE`` here and return the peak resident set of that process, MiB."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", *module], env=env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{module[0]} failed")
    return usage.ru_maxrss / 1024


def main() -> None:
    """Print a line for each number of rows."""
    counts = [int(count) for count in sys.argv[1:]] or [5_000, 20_000, 80_000]
    print(f"{'rows':>8} {'extract MiB':>12} {'verify MiB':>12}")
    first: list[float] = []
    for rows in counts:
        folder = Path(tempfile.mkdtemp())
        try:
            make_archives(folder, rows)
            params = YAML(typ="safe").load(ROOT / "params.yaml")
            params["prepare"] = {"source": str(folder), "md5": checksums(folder)}
            params["base"] |= {"variant": "narrow", "weights": "seeded"}
            YAML(typ="safe").dump(params, folder / "params.yaml")
            os.chdir(folder)
            peak_mib("stages.prepare")
            peaks = [peak_mib("stages.extract"), peak_mib("stages", "verify", "data/features.zarr")]
        finally:
            os.chdir(ROOT)
            shutil.rmtree(folder)
        first = first or peaks
        growth = ", ".join(f"{100 * (p / f - 1):+.1f} %" for p, f in zip(peaks, first, strict=True))
        print(f"{rows:8,} {peaks[0]:12.0f} {peaks[1]:12.0f}   {growth}", flush=True)


if __name__ == "__main__":
    main()
