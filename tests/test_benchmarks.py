"""The benchmarks run, and what they hold beside stage one computes the same."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT


def ran(*module: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", *module], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.slow
def test_speed_beside_another_tool() -> None:
    few = ["--images", "110", "--rounds", "1"]
    out = ran("benchmarks.speed", *few, "--only", "fc7cache", "the lab's graph")
    (distance,) = re.findall(r"the lab's graph: differs from the first by (\S+) of its norm", out)
    assert 0 < float(distance) < 1e-5
    rows = re.findall(r"^\| (.+?) \| \d+ \(.* x \|$", out, re.MULTILINE)
    assert rows == ["fc7cache", "the lab's graph"]


@pytest.mark.slow
def test_growth() -> None:
    out = ran("benchmarks.growth", "--variant", "narrow", "1000")
    assert re.search(r"^\| 1,000 \| 1 \| [\d.]+ \|", out, re.MULTILINE)


def test_layers() -> None:
    out = ran("benchmarks.layers", "--variant", "narrow")
    assert re.findall(r"^\| (\w+) \|.* (?:\d+) \|$", out, re.MULTILINE) == [
        "conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7",
    ]  # fmt: skip
