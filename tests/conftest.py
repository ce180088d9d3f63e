"""Drawn signs, and a workspace in which the whole graph runs in seconds."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from filelock import FileLock
from ruamel.yaml import YAML
from s3 import S3, serve_s3

from stages.demo import checksums, draw_archives

ROOT = Path(__file__).resolve().parent.parent
# Files that take longest begin first, so that none of them is left for the end.
LONGEST = [
    f"test_{name}.py"
    for name in (
        "pipeline", "remote", "workers", "selection", "machines", "doctor", "benchmarks", "real",
        "own_graph", "out_of_core", "kills", "cli", "heads", "verify",
    )
]  # fmt: skip
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))
    if not os.environ.get("FC7CACHE_SLOW"):
        skip = pytest.mark.skip(reason="takes long: FC7CACHE_SLOW is not set, as it is in CI")
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all processes see which test side by side."""
    folder = tmp_path_factory.getbasetemp()
    return folder if worker_id == "master" else folder.parent


@pytest.fixture(scope="session")
def drawn(shared: Path) -> Path:
    """The three archives, with drawn signs of five classes: 200 training and 90 test images."""
    folder = shared / "archives"
    with FileLock(shared / "archives.lock"):
        if not folder.exists():
            folder.mkdir()
            draw_archives(folder, classes=(1, 12, 14, 18, 38))
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """A running S3 server; its clients need ``env`` in their environment."""
    with serve_s3() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty bucket, which this process and its children can reach."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return s3_server.bucket()


class Workspace:
    """A copy of the project, with a narrow base, small shards and quick heads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.printed = ""

    def set_up(self, archives: Path) -> Self:
        """Copy the project here, and have it read these archives."""
        root = self.root
        root.mkdir(parents=True)
        for package in ("pipeline", "stages", "cache"):
            shutil.copytree(
                ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore"):
            shutil.copyfile(ROOT / name, root / name)
        (root / ".dvc").mkdir()
        config = (ROOT / ".dvc/config").read_text()
        (root / ".dvc/config").write_text(config.replace("[core]", "[core]\n    no_scm = true", 1))
        self.set("prepare", source=str(archives), md5=checksums(archives))
        self.set("base", variant="narrow", weights="seeded")
        self.set("store", shard_rows=64, chunk_rows=16)
        self.set("heads.softmax", learning_rate=[0.01, 0.03], scaling="sqrt_l2")
        self.set("heads.softmax", components=None, weight_decay=0, seeds=[0, 1])
        self.set("heads.mlp", epochs=20, hidden=32, components=64, dropout=0.3, scaling="sqrt_l2")
        self.set("heads.mlp", learning_rate=0.003, seeds=[0])
        self.set("heads.logistic", C=[10, 100], max_iter=50, scaling="sqrt_l2")
        self.set("study", fractions=[0.5])
        return self

    def set(self, section: str, **values: Any) -> None:
        """Change settings in params.yaml."""
        yaml = YAML()
        path = self.root / "params.yaml"
        params = node = yaml.load(path)
        for step in section.split("."):
            node = node[step]
        node.update(values)
        yaml.dump(params, path)

    def env(self, **changes: str) -> dict[str, str]:
        """The environment, in which ``python`` is this one."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return os.environ | {"PATH": path} | changes

    def run(self, *args: str, status: int = 0, **env: str) -> str:
        """Run ``python -m ARGS`` in the workspace; return what it printed, both streams."""
        done = subprocess.run(
            [sys.executable, "-m", *args],
            cwd=self.root,
            env=self.env(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == status, f"status {done.returncode}:\n{done.stdout}"
        return done.stdout

    def repro(self, *args: str, **env: str) -> str:
        """``dvc repro``."""
        return self.run("dvc", "repro", *args, **env)

    def python(self, code: str) -> str:
        """Run code in the workspace, in a process of its own."""
        return subprocess.run(
            [sys.executable, "-c", code], cwd=self.root, capture_output=True, text=True, check=True
        ).stdout


@pytest.fixture
def workspace(tmp_path: Path, drawn: Path) -> Workspace:
    """A fresh workspace; nothing has run in it."""
    return Workspace(tmp_path / "project").set_up(drawn)


@pytest.fixture(scope="session")
def _finished(shared: Path, drawn: Path) -> Workspace:
    # It takes a minute: the first that needs it makes it for all.
    workspace, printed = Workspace(shared / "finished"), shared / "printed.txt"
    with FileLock(shared / "finished.lock"):
        if not printed.exists():
            printed.write_text(workspace.set_up(drawn).repro())
    workspace.printed = printed.read_text()
    return workspace


@pytest.fixture
def finished(tmp_path: Path, _finished: Workspace) -> Workspace:
    """A workspace in which ``dvc repro`` has run; what it said is in ``printed``."""
    shutil.copytree(_finished.root, tmp_path / "project")
    workspace = Workspace(tmp_path / "project")
    workspace.printed = _finished.printed
    return workspace
