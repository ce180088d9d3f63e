"""Reading in threads and in processes: the same images, the same errors, nothing left behind."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image

from pipeline.ahead import loaded_ahead
from pipeline.archives import NAMES
from pipeline.errors import InputError
from pipeline.eye import Eye
from pipeline.images import Contrast, cropped, resized
from pipeline.reading import Reader, workers
from pipeline.signs import index_images
from stages.demo import draw_archives


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("archives")
    draw_archives(folder, classes=range(3))
    return {split: folder / NAMES[split] for split in ("train", "test")}


@pytest.fixture(scope="module")
def index(archives: dict[str, Path]) -> pd.DataFrame:
    from pipeline.archives import Archive

    paths = archives | {"test_labels": archives["train"].with_name(NAMES["test_labels"])}
    return index_images({part: Archive(path) for part, path in paths.items()}, lambda rows: rows)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_threads_and_processes_read_the_same(
    archives: dict[str, Path], index: pd.DataFrame, count: int
) -> None:
    eye = Eye(32, to_roi=True, shift=0.1)
    pool, read = workers(Reader(index, archives, eye), count)
    groups = [[0, 1, 2], [len(index) - 1], [5, 3]]
    found = list(loaded_ahead(read, groups, pool, ahead=2))
    for rows, (images, seconds) in zip(groups, found, strict=True):
        assert set(seconds) == {"reading", "decoding"}
        assert min(seconds.values()) > 0
        for row, views in zip(rows, images, strict=True):
            line = index.iloc[row]
            with zipfile.ZipFile(archives[line.split]).open(line.member) as file:
                whole = Image.open(file).convert("RGB")
            box = (line.roi_x1, line.roi_y1, line.roi_x2, line.roi_y2)
            np.testing.assert_array_equal(views[0], resized(cropped(whole, box), 32))
            assert len(views) == 5


@pytest.mark.parametrize("count", [2, 5])
def test_an_image_that_is_another_is_told_from_wherever_it_is_read(
    archives: dict[str, Path], index: pd.DataFrame, count: int
) -> None:
    wrong = index.assign(sha256="0" * 64)
    pool, read = workers(Reader(wrong, archives, Eye(32)), count)
    with pytest.raises(InputError, match=r"is not the image that data/index\.csv lists"):
        list(loaded_ahead(read, [[0]], pool))


def test_small_images_stay_small_only_for_a_device_that_enlarges_and_no_contrast() -> None:
    small, large = Image.new("RGB", (20, 30)), Image.new("RGB", (20, 50))
    assert Eye(40, enlarges=True).seen(small)[0].shape == (30, 20, 3)
    assert Eye(40, enlarges=True).seen(large)[0].shape == (40, 40, 3)
    assert Eye(40).seen(small)[0].shape == (40, 40, 3)
    contrast = Contrast(4, 4)
    assert Eye(40, contrast=contrast, enlarges=True).seen(small)[0].shape == (40, 40, 3)


SCRIPT = """
import sys, time
import pandas as pd
from pipeline.eye import Eye
from pipeline.reading import Reader, workers

if __name__ == "__main__":
    columns = ["split", "member", "sha256", "roi_x1", "roi_y1", "roi_x2", "roi_y2"]
    pool, _ = workers(Reader(pd.DataFrame(columns=columns), {}, Eye(32)), 5)
    import os
    print(*{pool.submit(os.getpid).result() for _ in range(50)}, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    children = parent.stdout.readline().split()
    assert children
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    patience = time.monotonic() + 30
    while time.monotonic() < patience and any(Path(f"/proc/{pid}").exists() for pid in children):
        time.sleep(0.1)
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
