"""The examples on data that the graph's tests do not have."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from stores import MADE_BY, columns_for, make_store

from cache.spec import Layout
from pipeline.head import Head


def test_the_linear_svc_of_the_examples_takes_two_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    label, layout = np.arange(60) % 2, Layout(60, {"fc7": 8}, shard_rows=64, chunk_rows=16)
    kind = 2 * (np.arange(8) % 2 == label[:, None])
    features = np.abs(np.random.default_rng(0).normal(size=(60, 8)) + kind)
    columns = {
        **columns_for(60),
        "label": label,
        "track": np.arange(60) // 4 * 2 + label,
        "split": np.full(60, "train"),
    }
    made_by = MADE_BY | {"layers": ["fc7"]}
    path = tmp_path / "s.zarr"
    make_store(path, layout, {"fc7": features.astype(np.float32)}, None, columns, made_by)
    monkeypatch.setattr(Head, "kinds", Head.kinds | {})
    monkeypatch.setattr(sys, "argv", ["linear_svc.py", str(path)])
    runpy.run_path(str(ROOT / "examples/linear_svc.py"))
    shares = re.findall(r"C \S+: (\S+) %", capsys.readouterr().out)
    assert len(shares) == 3
    assert min(map(float, shares)) > 80
