"""Archives of made images in the layout of GTSRB, for benchmarks: any number, in seconds.

An image is smooth noise, of GTSRB's sizes (25 to 266 pixels, median 43), so that to read, decode
and enlarge it costs what a real one does; it shows nothing.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ruamel.yaml import YAML

from pipeline.archives import NAMES
from stages.demo import HEADER, checksums

ROOT = Path(__file__).resolve().parent.parent
TEST_ROWS = 100


def made_image(seed: int) -> tuple[bytes, str]:
    """A PPM file, and what its line in a CSV says of it: sizes and region of interest."""
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.normal(np.log(43), 0.4)) * rng.normal(1, 0.05, 2)
    width, height = np.clip(sides, 25, 266).astype(int).tolist()
    smooth = Image.fromarray(rng.integers(40, 200, (8, 8, 3), np.uint8)).resize((width, height))
    noisy = np.asarray(smooth) + rng.integers(0, 16, (height, width, 3), np.uint8)
    data = b"P6\n%d %d\n255\n" % (width, height) + noisy.tobytes()
    return data, f"{width};{height};5;5;{width - 6};{height - 6}"


def make_archives(folder: Path, rows: int) -> None:
    """Write archives with so many images, the last TEST_ROWS of them as test set."""
    files = {
        part: zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED)
        for part, name in NAMES.items()
    }
    lists: dict[str, list[str]] = {}
    for row in range(rows - TEST_ROWS):
        label, track = row % 43, row // 43 // 4
        name, base = f"{track:05}_{row // 43 % 4:05}.ppm", f"Final_Training/Images/{label:05}"
        data, line = made_image(row)
        files["train"].writestr(f"GTSRB/{base}/{name}", data)
        listed = lists.setdefault(f"GTSRB/{base}/GT-{label:05}.csv", [f"{HEADER};ClassId"])
        listed.append(f"{name};{line};{label}")
    for name, lines in lists.items():
        files["train"].writestr(name, "\r\n".join(lines))
    lines = [f"{HEADER};ClassId"]
    for row in range(TEST_ROWS):
        data, line = made_image(10**9 + row)
        files["test"].writestr(f"GTSRB/Final_Test/Images/{row:05}.ppm", data)
        lines.append(f"{row:05}.ppm;{line};{row % 43}")
    files["test_labels"].writestr("GT-final_test.csv", "\r\n".join(lines))
    for file in files.values():
        file.close()


def write_params(folder: Path, archives: Path, **base: Any) -> None:
    """Write a params.yaml: these archives, seeded weights, settings of the base."""
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["prepare"] |= {"source": str(archives), "md5": checksums(archives)}
    params["base"] |= {"weights": "seeded"} | base
    YAML(typ="safe").dump(params, folder / "params.yaml")
