"""What the README shows works."""

import re
from typing import Any

import numpy as np
from conftest import ROOT
from ruamel.yaml import YAML
from sklearn.linear_model import RidgeClassifier
from typer.main import get_command

from pipeline import heads
from stages.__main__ import app
from stages.params import checked

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


class Bar:
    def update(self) -> None: ...


def test_the_head_of_the_readme_can_be_added() -> None:
    (source,) = [block for block in blocks("python") if "RidgeHead" in block]
    (block,) = [block for block in blocks("yaml") if "ridge" in block]
    names: dict[str, Any] = vars(heads) | {"RidgeClassifier": RidgeClassifier}
    exec(source, names)  # noqa: S102
    settings = YAML(typ="safe").load(block)["ridge"]
    assert settings.pop("features") is None
    head = checked(names["RidgeHead"], settings, "heads.ridge")
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 20)
    x = np.abs(rng.standard_normal((60, 12)) + 3 * np.eye(3, 12)[y]).astype(np.float32)
    head.fit(x, y, x, y, lambda total: Bar())
    assert np.mean(head.classes_[head.predict_proba(x).argmax(axis=1)] == y) > 0.9
    assert head.history_[0]["val_accuracy"] > 0.9


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
