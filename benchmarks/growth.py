"""How the cost of stage one grows with the number of images.

    python -m benchmarks.growth [--variant VARIANT] [IMAGES …]

fc7 of AlexNet with seeded weights, made images of GTSRB's sizes. Each time is the wall time of a
whole process, its start included; each peak, its largest resident set, as the kernel counts it.
*Again* is a second run with nothing new, *one more* a run after one image was added, *a head* is
`train` of a ridge with one setting on all of it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

from benchmarks.made import ROOT, make_archives, write_params
from stages.places import STORE

STEPS = {
    "extract": ["stages.extract"],
    "again": ["stages.extract"],
    "verify": ["stages", "verify", str(STORE)],
    "a head": ["stages.train", "--head", "ridge"],
    "one more": ["stages.extract"],
}


def run(folder: Path, *module: str) -> tuple[float, float]:
    """Run ``python -m MODULE`` in a folder: seconds, and its peak resident set in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{module[0]} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def lay_out(folder: Path, images: int, variant: str) -> None:
    """Archives, settings, index."""
    make_archives(folder, images)
    write_params(folder, folder, variant=variant)
    yaml = YAML(typ="safe")
    params = yaml.load(folder / "params.yaml")
    params["heads"]["ridge"] |= {"scaling": "l2", "alpha": 0.3}
    yaml.dump(params, folder / "params.yaml")
    run(folder, "stages.prepare")


def main() -> None:
    """Print a line for each number of images."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=int, nargs="*", metavar="IMAGES")
    parser.add_argument("--variant", choices=("bvlc", "torchvision", "narrow"), default="bvlc")
    given = parser.parse_args()
    print("| images | store, MB |", *(f"{step}, s |" for step in STEPS), end=" ")
    print("extract, peak MiB | verify, peak MiB |\n|" + "---|" * (len(STEPS) + 4), flush=True)
    for images in given.images or [1_000, 5_000, 20_000, 50_000]:
        folder = Path(tempfile.mkdtemp())
        try:
            lay_out(folder, images, given.variant)
            seconds, peaks = {}, {}
            for step, module in STEPS.items():
                if step == "one more":
                    lay_out(folder, images + 1, given.variant)
                seconds[step], peaks[step] = run(folder, *module)
                if step == "extract":
                    files = [file for file in (folder / STORE).rglob("*") if file.is_file()]
                    nbytes = sum(file.stat().st_size for file in files)
        finally:
            shutil.rmtree(folder)
        cells = [f"{images:,}", f"{nbytes / 1e6:,.0f}"]
        cells += [f"{spent:,.1f}" for spent in seconds.values()]
        cells += [f"{peaks[step]:,.0f}" for step in ("extract", "verify")]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
