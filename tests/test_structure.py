"""What the layout promises: imports go one way, and DVC knows every file a stage runs."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

import cache

PACKAGES = ("pipeline", "cache", "stages")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).glob("*.py"))
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def imported(path: Path) -> Iterator[Path]:
    """Files of the project that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            file = ROOT / (name.replace(".", "/") + ".py")
            if name.split(".")[0] in PACKAGES and file.is_file():
                yield file


def needed(path: Path) -> set[Path]:
    found: set[Path] = set()
    todo = [path]
    while todo:
        file = todo.pop()
        if file not in found:
            found.add(file)
            todo += imported(file)
    return found


def names(stage: str) -> tuple[str, set[str]]:
    definition = STAGES[stage].get("do", STAGES[stage])
    return definition["cmd"], {dep for dep in definition["deps"] if dep.endswith(".py")}


def test_pipeline_and_cache_import_neither_each_other_nor_stages() -> None:
    for path in MODULES:
        package = path.parent.name
        others = {file.parent.name for file in imported(path)} - {package}
        assert not others or package == "stages", f"{path.relative_to(ROOT)} imports {others}"


def test_only_params_reads_yaml_and_only_the_writer_makes_arrays() -> None:
    yaml = {path.name for path in MODULES if "YAML(" in path.read_text()}
    makes = {
        path.name for path in MODULES if re.search(r"create_(array|group)\(", path.read_text())
    }
    assert yaml == {"params.py", "demo.py"}  # the demo writes a params.yaml of its own
    assert makes == {"writer.py"}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_exactly_the_modules_a_stage_runs(stage: str) -> None:
    command, deps = names(stage)
    module = re.search(r"python -m ([\w.]+)", command)
    assert module
    entry = ROOT / (module[1].replace(".", "/") + ".py")
    wanted = {str(file.relative_to(ROOT)) for file in needed(entry)}
    assert deps == wanted


def test_a_head_is_no_dependency_of_the_base() -> None:
    _, deps = names("extract")
    assert not deps & {"pipeline/head.py", "pipeline/scaling.py", "stages/train.py"}
    assert "pipeline/alexnet.py" in deps


def test_comparing_again_needs_neither_base_nor_heads_nor_store() -> None:
    _, deps = names("compare")
    assert not deps & {"pipeline/alexnet.py", "pipeline/head.py", "cache/store.py"}
    assert "pipeline/report" in STAGES["compare"]["deps"]  # its templates
    assert "data/features.zarr" not in STAGES["compare"]["deps"]


def test_package_files_hold_nothing_but_a_docstring() -> None:
    # So they need not be dependencies.
    for package in PACKAGES:
        body = ast.parse((ROOT / package / "__init__.py").read_text()).body
        assert len(body) == 1
        assert isinstance(body[0], ast.Expr)


def test_the_packages_are_those_of_this_repository() -> None:
    assert Path(cache.__file__).parent == ROOT / "cache"


def test_the_lock_pins_every_dependency_by_hash_and_names_no_index() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"][1:]
    for requirement in wanted:
        name = re.match(r"[\w.-]+", requirement)
        assert name
        canonical = re.sub(r"[-_.]+", "-", name[0]).lower()
        assert re.search(rf"^{canonical}==", lock, re.MULTILINE), canonical
    assert "://" not in lock
    entries = re.split(r"\n(?=\S)", lock)
    assert all("--hash=sha256:" in entry for entry in entries if not entry.startswith("#"))
