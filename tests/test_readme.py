"""What the README shows works."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from heads import X, Y
from ruamel.yaml import YAML
from typer.main import get_command

from pipeline import linear
from pipeline.head import Head
from pipeline.selection import Data, select
from stages.__main__ import app
from stages.candidates import candidates_of
from stages.params import load_params

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_head_of_the_readme_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = [block for block in blocks("python") if "LinearSVCHead" in block]
    (block,) = [block for block in blocks("yaml") if "linear_svc" in block]
    monkeypatch.setattr(Head, "kinds", Head.kinds | {})
    monkeypatch.setattr("stages.candidates.KINDS", Head.kinds)
    exec(source, vars(linear) | {"__name__": "readme"})  # noqa: S102
    params = load_params(ROOT / "params.yaml")
    params.heads.update(YAML(typ="safe").load(block))
    candidates = candidates_of(params, "linear_svc")
    assert candidates.searched == ["C"]
    folds = [(np.arange(100), np.arange(100, 160))]
    label = np.searchsorted(np.unique(Y), Y)
    found = select(candidates.heads, folds, Data([X], label, 43))
    assert max(outcome.accuracy for (outcome,) in found.outcomes) > 0.6


def test_the_heads_by_layers_of_the_readme_are_valid() -> None:
    (block,) = [block for block in blocks("yaml") if "ridge_both" in block]
    params = load_params(ROOT / "params.yaml")
    params.heads.update(YAML(typ="safe").load(block)["heads"])
    params.base.layers[:] = ["conv5", "pool5"]
    layers = {name: candidates_of(params, name).layers for name in params.heads if "_" in name}
    assert layers.pop("nearest_mean") == ["pool5"]
    assert layers == {
        "ridge_pool5": ["pool5"],
        "ridge_conv5": ["conv5"],
        "ridge_both": ["conv5", "pool5"],
    }


def test_the_fine_tuned_block_that_is_commented_out_is_valid() -> None:
    lines = (ROOT / "params.yaml").read_text().splitlines()
    block = [line[4:] for line in lines if line.startswith("  #   ") or line == "  # fine_tuned:"]
    params = load_params(ROOT / "params.yaml")
    params.heads.update(YAML(typ="safe").load("\n".join(block)))
    params.base.layers[:] = ["pool5", "fc7"]
    assert candidates_of(params, "fine_tuned").heads[0].kind == "fine_tuned"


def test_the_runs_behind_the_table_of_accuracies_are_valid(tmp_path: Path) -> None:
    runs = runpy.run_path(str(ROOT / "benchmarks/accuracy.py"))["RUNS"]
    document = YAML(typ="safe").load(ROOT / "params.yaml")
    for name, (base, store, heads) in runs.items():
        path = tmp_path / f"{name}.yaml"
        changed = {part: document[part] | new for part, new in (("base", base), ("store", store))}
        study = document["study"] | {"heads": [next(iter(heads))]}
        YAML(typ="safe").dump(document | changed | {"heads": heads, "study": study}, path)
        params = load_params(path)
        for head in heads:
            assert len(candidates_of(params, head).heads) == 1
    table = (ROOT / "docs/accuracy.md").read_text()
    listed = re.findall(r"^\| (\w+) \| ([\w-]+) \| \d", table, re.MULTILINE)
    assert sorted(listed) == sorted((name, head) for name in runs for head in runs[name][2])


def test_every_command_and_target_named_exists() -> None:
    commands = set(re.findall(r"fc7cache (predict|[a-z]+) ", README)) - {"is", "run"}
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert commands <= known
    assert known >= {"predict", "classify", "info", "verify", "diff", "repair", "export"}
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make (demo|test|repro|clean)", README)) <= targets


def test_no_figure_is_missing() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert not re.findall(r"[A-Z]+_(?:TABLE|LINE|TEXT)", path.read_text()), path


def test_every_file_named_is_there() -> None:
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path
