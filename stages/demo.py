"""``make demo``: the whole graph on drawn signs, in a workspace of its own."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from pipeline.archives import NAMES
from pipeline.camera import Frame, film_track
from pipeline.classes import CLASS_NAMES
from pipeline.drawing import draw_sign
from stages.console import bar, run, say

WORKSPACE = Path("demo")
CODE = ("pipeline", "stages", "cache")
TRAIN_TRACKS, TRAIN_FRAMES = 5, 8  # of each class; with the test images, about 2,500
TEST_TRACKS, TEST_FRAMES = 6, 3
HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2"


def draw_archives(
    folder: Path, seed: int = 0, classes: Sequence[int] = range(len(CLASS_NAMES))
) -> None:
    """Write drawn signs as the three official archives; the same bytes for the same seed.

    Args:
        folder: Created if need be.
        seed: Of everything that varies.
        classes: Which signs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = "GTSRB/Final_Training/Images"
    test: list[tuple[int, Frame]] = []
    with zipfile.ZipFile(folder / NAMES["train"], "w") as archive:
        for label in bar(classes, desc="drawing", unit=" classes"):
            sign, rows = draw_sign(label), []
            for track in range(TRAIN_TRACKS):
                rng = np.random.default_rng([seed, label, track])
                for number, frame in enumerate(film_track(sign, TRAIN_FRAMES, rng)):
                    name = f"{track:05}_{number:05}.ppm"
                    _add(archive, f"{images}/{label:05}/{name}", _ppm(frame))
                    rows.append(f"{_row(name, frame)};{label}")
            csv = _csv([f"{HEADER};ClassId", *rows])
            _add(archive, f"{images}/{label:05}/GT-{label:05}.csv", csv)
            for track in range(TRAIN_TRACKS, TRAIN_TRACKS + TEST_TRACKS):
                rng = np.random.default_rng([seed, label, track])
                test += [(label, frame) for frame in film_track(sign, TEST_FRAMES, rng)]
    order = np.random.default_rng(seed).permutation(len(test))
    rows, labelled = [], []
    with zipfile.ZipFile(folder / NAMES["test"], "w") as archive:
        for number, place in enumerate(order):
            label, frame = test[place]
            name = f"{number:05}.ppm"
            _add(archive, f"GTSRB/Final_Test/Images/{name}", _ppm(frame))
            rows.append(_row(name, frame))
            labelled.append(f"{rows[-1]};{label}")
        _add(archive, "GTSRB/Final_Test/Images/GT-final_test.test.csv", _csv([HEADER, *rows]))
    with zipfile.ZipFile(folder / NAMES["test_labels"], "w") as archive:
        _add(archive, "GT-final_test.csv", _csv([f"{HEADER};ClassId", *labelled]))


def checksums(folder: Path) -> dict[str, str]:
    """md5 of each archive, as ``prepare.md5`` wants them."""
    return {
        part: hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()
        for part, name in NAMES.items()
    }


def main() -> int:
    """Set up the workspace, draw what is not drawn, run the graph, show the comparison."""
    archives = WORKSPACE / "archives"
    copy_project(WORKSPACE)
    drawn_by = b"".join(
        Path(name).read_bytes()
        for name in ("pipeline/drawing.py", "pipeline/camera.py", "stages/demo.py")
    )
    stamp, digest = archives / "drawn_by", hashlib.sha256(drawn_by).hexdigest()
    if not stamp.is_file() or stamp.read_text() != digest:
        shutil.rmtree(archives, ignore_errors=True)
        say("demo: drawing about 2,500 signs of 43 classes")
        draw_archives(archives)
        stamp.write_text(digest)
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    params["prepare"] |= {"source": "archives", "md5": checksums(archives)}
    params["base"] |= {"weights": "seeded"}
    # Fewer combinations than the real run tries: this is to be over in minutes.
    params["heads"]["softmax"] |= {"scaling": "l2", "weight_decay": 0}
    params["heads"]["mlp"] |= {"scaling": "l2", "dropout": 0.3}
    params["heads"]["logistic"] |= {"scaling": "l2", "C": 1000}
    yaml.dump(params, WORKSPACE / "params.yaml")
    if status := repro(WORKSPACE):
        return status
    say((WORKSPACE / "results/comparison.txt").read_text())
    say(f"demo: drawn signs, report -> {WORKSPACE / 'results/report.html'}")
    return 0


def copy_project(workspace: Path) -> None:
    """Copy what DVC runs; data and results of an earlier run there stay."""
    for package in CODE:
        shutil.rmtree(workspace / package, ignore_errors=True)
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, workspace / package, ignore=skip)
    for name in ("dvc.yaml", ".dvcignore", ".dvc/config"):
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(name, workspace / name)
    config = workspace / ".dvc/config"
    config.write_text(config.read_text().replace("[core]", "[core]\n    no_scm = true", 1))


def repro(workspace: Path) -> int:
    """Run ``dvc repro`` there; return its exit status."""
    # The stages run as `python -m ...`: let that be this Python, whatever the shell's path says.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.call(
        [sys.executable, "-m", "dvc", "repro"], cwd=workspace, env=os.environ | {"PATH": path}
    )


def _ppm(frame: Frame) -> bytes:
    data = io.BytesIO()
    frame.image.save(data, "PPM")
    return data.getvalue()


def _row(name: str, frame: Frame) -> str:
    return ";".join(map(str, (name, *frame.image.size, *frame.roi)))


def _csv(lines: list[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    # A fixed date, so that the archive's checksum depends on its content alone.
    entry = zipfile.ZipInfo(name, date_time=(2011, 1, 1, 0, 0, 0))
    archive.writestr(entry, data, zipfile.ZIP_DEFLATED, compresslevel=1)


if __name__ == "__main__":
    run(main, "`make demo` goes on from there")
