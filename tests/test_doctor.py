"""``fc7cache doctor`` finds what is wrong, each thing made wrong for real."""

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from conftest import ROOT, Workspace
from loopback import serve, unreachable
from typer.testing import CliRunner

from pipeline.archives import NAMES
from stages import machine, reach
from stages.__main__ import app
from stages.doctor import examine_project, examine_settings
from stages.finding import Finding
from stages.params import Base, load_params

STORE = Path("data/features.zarr")


@pytest.fixture
def here(finished: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(finished.root)
    return finished


def project(about: str) -> list[Finding]:
    return [finding for finding in examine_project(load_params()) if finding.about == about]


# The whole of it.


def test_a_finished_project_has_no_problem(here: Workspace) -> None:
    shutil.copyfile(ROOT / "requirements.lock", "requirements.lock")
    result = CliRunner().invoke(app, ["doctor", "--json"])
    findings = json.loads(result.stdout)["findings"]
    found = {finding["about"]: finding for finding in findings}
    assert [f for f in findings if f["level"] == "problem" and f["about"] != "lock"] == []
    assert result.exit_code == (found["lock"]["level"] == "problem")
    assert found["backend"]["text"].startswith("tensorflow ")
    assert "290 rows" in found["store"]["text"]
    assert sum(f["about"] == "archive" and "md5 right" in f["text"] for f in findings) == 3


def test_outside_of_a_project_it_says_so_and_still_looks_at_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    problems = [line for line in result.stdout.splitlines() if line.startswith("problem ")]
    assert len(problems) == 1
    assert "no params.yaml in" in problems[0]
    assert "note     backend    jax " in result.stdout
    assert result.stdout.splitlines()[-1].startswith("problems: 1, notes: ")


# The machine.


def test_pins_that_are_not_met_are_named(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "# by hand\n"
        f"numpy=={np.__version__} ; python_version >= '3' \\\n    --hash=sha256:00 \\\n"
        "    --hash=sha256:01\n"
        "zarr==0.0.1 \\\n    --hash=sha256:02\n"
        "no-such-package==1.0 \\\n    --hash=sha256:03\n"
        "not-here==1.0 ; sys_platform == 'nowhere' \\\n    --hash=sha256:04\n"
    )
    found = machine.lock(lock)
    assert found.level == "problem"
    assert found.text.startswith("2 of 3 packages")
    assert "not ==0.0.1" in found.text
    assert "no-such-package not installed" in found.text
    assert "--require-hashes" in found.remedy

    lock.write_text(f"numpy=={np.__version__} \\\n    --hash=sha256:00\n")
    assert machine.lock(lock).level == "ok"
    assert machine.lock(tmp_path / "none").level == "note"


def test_the_projects_lock_is_understood() -> None:
    names = [pin.name for pin in machine.pins((ROOT / "requirements.lock").read_text())]
    assert {"numpy", "tensorflow", "zarr"} <= set(names)
    assert len(names) == len(set(names))  # of those for several Pythons, the one for this


def test_a_backend_that_is_unknown_or_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = machine.backend({"KERAS_BACKEND": "theano"})
    assert found.level == "problem"
    assert "'theano'" in found.text
    assert "unset" in found.remedy

    # A Keras that is broken, and one that meets an instruction this processor does not have.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    for code, said in (
        ("raise ImportError('libfoo.so.1: not found')", "libfoo.so.1: not found"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "signal 4"),
    ):
        (tmp_path / "keras.py").write_text(code)
        found = machine.backend({})
        assert found.level == "problem"
        assert said in found.text
        assert "Traceback" not in found.text


def test_a_processor_without_what_is_needed(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: Old One\nflags\t\t: fpu sse2 avx avx2\n" * 2)
    found = machine.processor("float32", cpuinfo)
    assert found.level == "ok"
    assert found.text.startswith("Old One, ")
    assert found.text.endswith(", avx avx2")
    assert "no bfloat16" in machine.processor("bfloat16", cpuinfo).text

    cpuinfo.write_text("model name\t: Older\nflags\t\t: fpu sse2\n")
    if platform.machine() in ("x86_64", "AMD64"):
        assert "no AVX" in machine.processor("float32", cpuinfo).text
    assert machine.processor(None, tmp_path / "none").level == "ok"


def test_too_little_memory_or_room(tmp_path: Path) -> None:
    assert machine.memory(1).level == "ok"
    assert machine.memory(1 << 60).level == "problem"

    folders = {"scratch": tmp_path / "not/yet/there", "DVC's cache": tmp_path, "data": tmp_path}
    free = shutil.disk_usage(tmp_path).free
    (fits,) = machine.disk(folders, dict.fromkeys(folders, free // 4))
    assert fits.level == "ok"
    # Once in scratch and once in the cache: each alone would fit.
    (full,) = machine.disk(folders, dict.fromkeys(folders, free * 3 // 4))
    assert full.level == "problem"
    assert "FC7CACHE_SCRATCH" in full.remedy
    (one,) = machine.disk(folders, {"scratch": free * 3 // 4, "DVC's cache": 0, "data": 0})
    assert one.level == "ok"
    (alone,) = machine.disk({"data": tmp_path}, {"data": 2 * free})
    assert alone.level == "problem"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no second file system")  # noqa: S108
def test_each_file_system_needs_room_for_what_lies_there(tmp_path: Path) -> None:
    other = Path("/dev/shm")  # noqa: S108
    if other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    folders = {"scratch": other, "DVC's cache": tmp_path}
    need = shutil.disk_usage(other).free + (1 << 30)
    levels = [found.level for found in machine.disk(folders, dict.fromkeys(folders, need))]
    assert levels[0] == "problem"
    assert len(levels) == 2


# The project.


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("heads.ridge", {"alhpa": 1}, "did you mean 'alpha'"),
        ("base", {"layers": ["fc7", "fc9"]}, "params.yaml: base.layers: no layer 'fc9'"),
        ("store", {"shard_rows": 10, "chunk_rows": 4}, "params.yaml: store.shard_rows (10) must"),
    ],
)
def test_settings_that_are_wrong(
    here: Workspace, section: str, values: dict[str, Any], said: str
) -> None:
    here.set(section, **values)
    params, (found,) = examine_settings()
    assert params is None
    assert found.level == "problem"
    assert said in found.text
    assert found.text.count("params.yaml") == 1


def test_a_store_absent_stale_or_damaged(here: Workspace) -> None:
    assert project("store")[0].level == "ok"
    here.set("base", crop="roi")
    (stale,) = project("store")
    assert stale.level == "note"
    assert "crop 'full'; params.yaml says 'roi'" in stale.text

    here.set("base", crop="full")
    index = Path("data/index.csv")
    lines = index.read_text().splitlines(keepends=True)
    index.unlink()
    index.write_text("".join([*lines, lines[-1]]))
    assert "290 rows; data/index.csv has 291" in project("store")[0].text

    attributes = STORE / "zarr.json"
    text = attributes.read_text()
    attributes.unlink()  # read-only, and linked from the cache
    attributes.write_text(text.replace('"narrow"', '"bvlc"', 1))
    (damaged,) = project("store")
    assert damaged.level == "problem"

    shutil.rmtree(STORE)
    (absent,) = project("store")
    assert "dvc pull" in absent.remedy


def prepared_from(workspace: Workspace, old: Path, new: str) -> None:
    """As if ``prepare`` had run on images that lay elsewhere."""
    workspace.set("prepare", source=new)
    lock = workspace.root / "dvc.lock"
    text = lock.read_text()
    assert f"source: {old}\n" in text
    lock.write_text(text.replace(f"source: {old}\n", f"source: {new}\n"))


def test_archives_are_a_problem_only_where_they_are_needed(here: Workspace, drawn: Path) -> None:
    (here.root / "archives").mkdir()
    Path("archives", NAMES["test_labels"]).touch()
    prepared_from(here, drawn, "archives")
    assert [found.level for found in project("archive")] == ["note"] * 3
    shutil.rmtree(STORE)
    assert [found.level for found in project("archive")] == ["problem"] * 3
    # Features can be pulled, as long as dvc.lock says which.
    here.run("dvc", "remote", "add", "store", str(here.root / "remote"))
    assert [found.level for found in project("archive")] == ["note"] * 3
    Path("dvc.lock").unlink()
    assert [found.level for found in project("archive")] == ["problem"] * 3

    for name in NAMES.values():
        shutil.copyfile(drawn / name, here.root / "archives" / name)
    settings = load_params().prepare
    assert [found.level for found in reach.sources(settings)[0]] == ["ok"] * 3
    Path("archives", NAMES["test"]).write_bytes(b"another")
    found, _ = reach.sources(settings)
    assert [finding.level for finding in found] == ["ok", "problem", "ok"]
    assert "expected md5" in found[1].text


def test_archives_offered_refused_and_out_of_reach(here: Workspace) -> None:
    settings = load_params().prepare
    with serve(dict.fromkeys(list(NAMES.values())[:2], b"zip")) as site:
        offered = settings.model_copy(update={"source": site.address})
        found, _ = reach.sources(offered)
    assert [finding.level for finding in found] == ["ok", "ok", "problem"]
    assert "404" in found[2].text
    nowhere = settings.model_copy(update={"source": unreachable()})
    found, _ = reach.sources(nowhere)
    assert all("cannot be reached" in finding.text for finding in found)
    assert "data/archives" in found[0].remedy


MEMBERS = [f"{label}/{k}.png" for label in ("cat", "dog") for k in range(4)]
CSV = "path,label\n" + "".join(f"{member},{member[:3]}\n" for member in MEMBERS)


@pytest.fixture
def own(here: Workspace) -> Path:
    """Two classes of four files each, which need be no images until they are opened."""
    for member in MEMBERS:
        path = here.root / "own" / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (here.root / "own.csv").write_text(CSV)
    (here.root / "own/list.csv").write_text(CSV)
    return here.root / "own"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("typo.csv", "nothing to read at typo.csv"),
        ("absent", "nothing to read at absent"),
        ("own.csv", "'cat/0.png' is listed but not there"),
        ("own", "notes.txt: not an image by its name"),
        ("own/cat.csv", "unknown column 'labl'; did you mean 'label'?"),
        ("own/one.csv", "at least two classes"),
    ],
)
def test_what_prepare_would_refuse_is_found(
    here: Workspace, own: Path, source: str, said: str
) -> None:
    (own / "cat/notes.txt").touch()
    (own / "cat.csv").write_text(CSV.replace("label", "labl"))
    (own / "one.csv").write_text("".join(CSV.splitlines(keepends=True)[:5]))
    here.set("prepare", source=source)
    (found,), listed = reach.sources(load_params().prepare)
    assert found.level == "problem"
    assert said in found.text
    assert listed is None


def test_a_source_is_a_problem_if_prepare_is_to_run(here: Workspace, drawn: Path) -> None:
    here.set("prepare", source="typo.csv")
    found = {finding.about: finding for finding in examine_project(load_params())}
    assert found["images"].level == "problem"
    assert found["store"].level == "ok"
    # What is there was made from it, and can be used without it.
    prepared_from(here, drawn, "typo.csv")
    (images,) = project("images")
    assert (images.level, images.remedy) == ("note", "")
    assert "nothing to read at typo.csv" in images.text


@pytest.mark.parametrize("source", ["own/list.csv", "own"])
def test_own_images_are_counted_and_not_opened(here: Workspace, own: Path, source: str) -> None:
    if source == "own":
        (own / "list.csv").unlink()
    here.set("prepare", source=source)
    (found,) = project("images")
    assert found.level == "ok"
    assert f"{source}: 8 of your own" in found.text
    assert "290 rows; prepare.source lists 8" in project("store")[0].text
    # Nor are they taken for GTSRB before they are indexed.
    shutil.rmtree("data")
    Path("dvc.lock").unlink()
    (room,) = project("disk")
    assert "the features take 0 MB" in room.text


def test_notes_of_dvc_that_cannot_be_read(here: Workspace) -> None:
    for text in ("stages: [", "stages: 3\n"):
        Path("dvc.lock").write_text(text)
        (found,) = project("dvc.lock")
        assert found.level == "problem"
        assert found.text.startswith("dvc.lock: not what DVC writes: ")
        assert found.text.endswith("restore it from git")


def test_room_is_asked_for_only_where_features_will_lie(
    here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.doctor.OFFICIAL_ROWS", 10**6)
    shutil.rmtree("data")
    monkeypatch.setenv("FC7CACHE_SCRATCH", str(tmp_path / "scratch"))

    def asked() -> str:
        return " ".join(found.text for found in project("disk"))

    assert "the features take 4,096 MB" in asked()  # 512 floats each, in scratch and in the cache
    here.set("store", address="memory://bucket/features")
    assert "the features take 2,048 MB" in asked()
    monkeypatch.setenv("FC7CACHE_SCRATCH", "memory://bucket/scratch")
    assert "the features take" not in asked()
    here.set("store", address=None)
    assert "the features take 2,048 MB" in asked()


def test_a_store_and_scratch_that_do_not_answer(
    here: Workspace, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FC7CACHE_SCRATCH", f"{s3}/scratch")
    (answers,) = project("scratch")
    assert answers.level == "ok"

    shutil.rmtree(STORE)
    STORE.mkdir()
    (STORE / "address.json").write_text(json.dumps({"address": f"{s3}/f.zarr", "digest": "00"}))
    monkeypatch.setenv("AWS_ENDPOINT_URL", unreachable())
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    # In a process of its own: clients of a process remember where the server was.
    said = here.python(
        "from stages.doctor import examine_project\n"
        "from stages.params import load_params\n"
        "for f in examine_project(load_params()): print(f.about, f.level, f.text)"
    )
    for address in (STORE, f"{s3}/scratch"):
        about = "store" if address is STORE else "scratch"
        silent = f"{about} problem {address}: cannot be reached (Could not connect to the endpoint"
        assert silent in said


def test_a_store_that_never_answers_is_told_in_time_and_left_behind() -> None:
    code = (
        "from stages import reach\n"
        "reach._REMOTE_TIMEOUT_S = 2\n"
        "print(reach.scratch('s3://bucket/scratch').text)"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
        address = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        env = os.environ | dict.fromkeys(names, "testing") | address | {"NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
    assert done.stdout == "s3://bucket/scratch: no answer within 2 s\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_what_a_store_cannot_raise_is_no_finding() -> None:
    def ask() -> bool:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError, match="a bug"):
        reach.reached("scratch", "s3://bucket", ask, "")

    def late() -> bool:
        raise TimeoutError("after a minute")

    found = reach.reached("scratch", "s3://bucket", late, "")
    assert found == Finding(
        "scratch", "problem", "s3://bucket: cannot be reached (after a minute)", ""
    )


@pytest.mark.parametrize("address", ["gs://bucket/scratch", "nosuch://bucket/scratch"])
def test_scratch_of_a_kind_that_is_not_installed(
    here: Workspace, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.setenv("FC7CACHE_SCRATCH", address)
    (found,) = project("scratch")
    assert found.level == "problem"
    assert "install fc7cache[s3]" in found.text


@pytest.mark.parametrize(
    ("prints", "said"),
    [
        ("pass", "expected an answer in JSON, got nothing"),
        ("print()", "got nothing"),
        ("print('a\\nwarning')", "got warning"),
        ("print(3)", "got 3"),
    ],
)
def test_a_program_that_ends_well_and_answers_nothing(prints: str, said: str) -> None:
    found = machine.answer([sys.executable, "-c", prints], timeout_s=60)
    assert isinstance(found, str)
    assert said in found


def test_weights(here: Workspace, s3: str) -> None:
    base = load_params().base
    (seeded,) = reach.base_weights(base, needed=True)
    assert seeded.level == "note"

    def several(*weights: str) -> list[Finding]:
        update = {"weights": list(weights), "sha256": "0" * 64}
        return reach.base_weights(Base.model_validate(base.model_dump() | update), needed=True)

    def of(weights: str, sha256: str | None = "0" * 64) -> Finding:
        update = {"weights": weights, "sha256": sha256}
        changed = Base.model_validate(base.model_dump() | update)
        (found,) = reach.base_weights(changed, needed=True)
        return found

    assert "no such file" in of("weights.npz").text
    Path("weights.npz").write_bytes(b"another")
    assert "expected sha256 000" in of("weights.npz").text
    assert "was not checked" in of("weights.npz", None).text
    assert "cannot be reached" in of(f"{unreachable()}/weights.npz").text
    with serve({"weights.npz": b"npz"}) as site:
        found = several("absent.npz", f"{site.address}/weights.npz")
    assert [finding.level for finding in found] == ["note", "ok"]  # one will do
    assert [finding.level for finding in several("absent.npz", "gone.npz")] == ["problem"] * 2
    with serve({"weights.npz": b"npz"}) as site:
        asked = of(f"{site.address}/weights.npz?download=1")
        assert asked.level == "problem"  # 404: it is asked for by all of its address
        Path("data/weights").mkdir()
        Path("data/weights/weights.npz").write_bytes(b"another")
        asked = of(f"{site.address}/weights.npz?download=1")
        assert "data/weights/weights.npz: expected sha256 000" in asked.text
        shutil.rmtree("data/weights")
        assert "unchecked" in of(f"{site.address}/weights.npz", None).text
        assert "expected weights in a" in of(f"{site.address}/weights.h5").text
    filesystem, bucket = fsspec.core.url_to_fs(s3, use_listings_cache=False)
    filesystem.pipe_file(f"{bucket}/weights.npz", b"npz")
    assert of(f"{s3}/weights.npz").level == "ok"
    assert "no such object" in of(f"{s3}/absent.npz").text
    assert "install fc7cache" in of("nosuch://bucket/weights.npz").text


def test_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(asked: str) -> Finding:
        monkeypatch.setenv("FC7CACHE_WORKERS", asked)
        return reach.workers()

    assert "this process" in found("1").text
    assert "3 processes" in found("3").text
    assert found("many").level == "problem"
    nobody = unreachable().replace("http", "tcp")
    assert "no scheduler listens" in found(nobody).text
    with socket.create_server(("127.0.0.1", 0)) as listens:
        assert found(f"tcp://127.0.0.1:{listens.getsockname()[1]}").level == "ok"


def test_remotes(here: Workspace, s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (none,) = reach.remotes({"remotes": {}, "default": None}, needed=False)
    assert none.level == "note"

    remotes = {
        "directory": str(tmp_path / "pushed"),
        "unmounted": str(tmp_path / "unmounted"),
        "bucket": s3,
        "no-bucket": "s3://no-such-bucket/store",
    }
    for name, address in remotes.items():
        here.run("dvc", "remote", "add", name, address)
    for name in ("directory", "bucket"):
        here.run("dvc", "push", "--remote", name, "results/audit.json")
    levels = {found.text.partition(",")[0]: found.level for found in project("remote")}
    assert levels.pop("none is the default") == "note"
    assert levels == {"directory": "ok", "unmounted": "note", "bucket": "ok", "no-bucket": "note"}

    # Where results are to come from there, the same is a problem.
    shutil.rmtree(STORE)
    here.run("dvc", "remote", "default", "unmounted")
    found = {found.text.partition(",")[0]: found for found in project("remote")}
    levels = {name: finding.level for name, finding in found.items()}
    wanted = {"directory": "ok", "unmounted": "problem", "bucket": "ok", "no-bucket": "problem"}
    assert levels == wanted

    monkeypatch.setenv("AWS_ENDPOINT_URL", unreachable())
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    found = {found.text.partition(",")[0]: found for found in project("remote")}
    assert found["bucket"].level == "problem"
    assert "Could not connect" in found["bucket"].text

    (here.root / ".dvc/config").write_text("no config")
    (broken,) = project("remote")
    assert broken.level == "problem"
