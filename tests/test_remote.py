"""Archives, weights, scratch and the store in an object store: a real S3 server, and a bad line."""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import ROOT, Workspace
from forge import Forge
from ruamel.yaml import YAML
from s3 import S3
from stores import digests
from test_kills import new_root
from unsteady import unsteady

from cache.errors import DamagedError, StoreError
from cache.store import open_store
from pipeline.alexnet import weight_shapes
from pipeline.archives import NAMES, Archive, archive_path
from pipeline.signs import index_images
from pipeline.weights import seeded_weights

LARGER = {"shard_rows": 64, "chunk_rows": 16}  # five shards of two layers: fewer requests


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    forge = Forge()
    yield forge
    forge.close()


@pytest.fixture(scope="module")
def index(drawn: Path) -> pd.DataFrame:
    return index_images({part: Archive(archive_path(str(drawn), part)) for part in NAMES})


@pytest.fixture(scope="module")
def reference(
    forge: Forge, index: pd.DataFrame, drawn: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The store that this machine makes."""
    root = new_root(tmp_path_factory.mktemp("reference") / "root", drawn)
    yaml = YAML(typ="safe")
    params = yaml.load(root / "params.yaml")
    params["store"] |= LARGER
    yaml.dump(params, root / "params.yaml")
    assert forge.extract(root, index)["status"] == 0
    return digests(root / "features.zarr")


class Far:
    """An extraction whose scratch and store are in a bucket."""

    def __init__(self, root: Path, bucket: str, env: dict[str, str]) -> None:
        self.root, self.bucket = root, bucket
        self.env = env | {"FC7CACHE_SCRATCH": f"{bucket}/scratch"}
        yaml = YAML(typ="safe")
        params = yaml.load(root / "params.yaml")
        params["store"] |= LARGER | {"address": f"{bucket}/published"}
        yaml.dump(params, root / "params.yaml")

    def stores(self, folder: str) -> list[str]:
        """Addresses of what lies there."""
        filesystem, root = fsspec.core.url_to_fs(
            f"{self.bucket}/{folder}", use_listings_cache=False
        )
        found = {path.partition(".zarr/")[0] for path in filesystem.find(root)}
        return [f"s3://{path}.zarr" for path in found]

    def files(self, folder: str) -> dict[str, bytes]:
        """What lies there, by name below the store."""
        filesystem, root = fsspec.core.url_to_fs(
            f"{self.bucket}/{folder}", use_listings_cache=False
        )
        found = filesystem.find(root)
        return {path.partition(".zarr/")[2]: filesystem.cat_file(path) for path in found}


@pytest.fixture
def far(tmp_path: Path, drawn: Path, s3: str, s3_server: S3) -> Far:
    return Far(new_root(tmp_path / "root", drawn), s3, s3_server.env)


def same_as(files: dict[str, bytes], reference: dict[str, str]) -> bool:
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} == reference


def test_scratch_and_store_in_a_bucket_are_those_of_a_disk(
    far: Far, forge: Forge, index: pd.DataFrame, reference: dict[str, str]
) -> None:
    answer = forge.extract(far.root, index, **far.env)
    assert answer["status"] == 0, answer["printed"]
    assert same_as(far.files("scratch"), reference)
    assert same_as(far.files("published"), reference)
    assert not (far.root / "scratch").exists()
    (pointer,) = (far.root / "features.zarr").iterdir()
    named = json.loads(pointer.read_text())
    assert named["address"] == answer["address"]
    store = open_store(far.root / "features.zarr")
    assert store.address == named["address"].removesuffix("/")
    assert np.isfinite(store.features("fc7")).all()
    again = forge.extract(far.root, index, **far.env)
    assert (again["forwarded"], again["reused"]) == (0, 290)
    assert json.loads(pointer.read_text()) == named


def test_extracting_again_brings_back_what_was_lost_from_the_bucket(
    far: Far, forge: Forge, index: pd.DataFrame, reference: dict[str, str]
) -> None:
    forge.extract(far.root, index, **far.env)
    filesystem, bucket = fsspec.core.url_to_fs(far.bucket, use_listings_cache=False)
    files = filesystem.find(f"{bucket}/published")
    column = next(path for path in files if path.endswith("label/c/0"))
    shard = next(path for path in files if path.endswith("fc7/c/2/0"))
    filesystem.rm(column)
    filesystem.pipe_file(shard, filesystem.cat_file(shard)[:10])
    answer = forge.extract(far.root, index, **far.env)
    assert (answer["status"], answer["forwarded"]) == (0, 0), answer["printed"]
    assert same_as(far.files("published"), reference)


def test_a_pointer_to_another_store_is_refused(far: Far, forge: Forge, index: pd.DataFrame) -> None:
    forge.extract(far.root, index, **far.env)
    pointer = far.root / "features.zarr/address.json"
    named = json.loads(pointer.read_text())
    pointer.write_text(json.dumps(named | {"digest": "0" * 64}))
    with pytest.raises(DamagedError, match=r"not the store that .* names"):
        open_store(far.root / "features.zarr")
    pointer.write_text(json.dumps(named | {"address": f"{far.bucket}/elsewhere.zarr"}))
    with pytest.raises(StoreError, match="found none"):
        open_store(far.root / "features.zarr")
    pointer.write_text("{")
    with pytest.raises(DamagedError, match=r"address\.json: expected the address and digest"):
        open_store(far.root / "features.zarr")


@pytest.mark.parametrize(
    "at",
    [
        r"/scratch/.*/fc7/zarr\.json$",  # as the store is laid out
        r"/scratch/.*/conv5/c/2/0$",
        r"/scratch/.*/fc7/c/2/0$",
        r"/scratch/[^/]*/[^/]*\.zarr/zarr\.json$",
        r"/published/.*/fc7/c/3/0$",
        r"/published/[^/]*\.zarr/zarr\.json$",  # the last of all
    ],
)
def test_what_is_killed_as_it_sends_a_file_is_no_store_and_goes_on(
    at: str,
    far: Far,
    forge: Forge,
    index: pd.DataFrame,
    reference: dict[str, str],
    s3_server: S3,
) -> None:
    def trouble(_: int, asked: str) -> str:
        if not asked.startswith("PUT") or not re.search(at, asked):
            return ""
        for child in psutil.Process(forge.pid).children():
            child.kill()
        return "lost"

    with unsteady(s3_server.address, trouble) as line:
        killed = forge.extract(far.root, index, **(far.env | {"AWS_ENDPOINT_URL": line.address}))
    assert killed["status"] == -signal.SIGKILL
    assert not (far.root / "features.zarr").exists()
    assert "zarr.json" not in far.files("published")
    for address in far.stores("published"):
        with pytest.raises(StoreError, match="found none"):
            open_store(address)
    scratch = far.files("scratch")
    kept = [
        k for k in range(5) if {f"{layer}/c/{k}/0" for layer in ("conv5", "fc7")} <= set(scratch)
    ]
    answer = forge.extract(far.root, index, **far.env)
    assert answer["status"] == 0, answer["printed"]
    assert answer["reused"] == sum(64 if k < 4 else 290 - 256 for k in kept)
    assert same_as(far.files("scratch"), reference)
    assert same_as(far.files("published"), reference)


@pytest.mark.parametrize("kind", ["refused", "cut", "slow"])
def test_an_unsteady_line_changes_no_byte(
    kind: str,
    far: Far,
    forge: Forge,
    index: pd.DataFrame,
    reference: dict[str, str],
    s3_server: S3,
) -> None:
    every, impatient = 40, json.dumps({"config_kwargs": {"read_timeout": 1}})
    with unsteady(s3_server.address, lambda number, _: "" if number % every else kind) as line:
        env = far.env | {"AWS_ENDPOINT_URL": line.address}
        if kind == "slow":  # for longer than a client waits
            env["FSSPEC_S3"] = impatient
        answer = forge.extract(far.root, index, **env)
        given = line.given.count(kind)
    assert answer["status"] == 0, answer["printed"]
    assert given > 5
    assert answer["forwarded"] == 290
    assert same_as(far.files("published"), reference)


def test_a_line_that_breaks_loses_nothing_and_is_told_in_one_line(
    far: Far, forge: Forge, index: pd.DataFrame, reference: dict[str, str], s3_server: S3
) -> None:
    broken = []

    def trouble(_: int, request: str) -> str:
        if request.startswith("PUT") and request.endswith("/fc7/c/2/0"):
            broken.append(request)
        return "refused" if broken else ""

    with unsteady(s3_server.address, trouble) as line:
        env = far.env | {"AWS_ENDPOINT_URL": line.address, "AWS_MAX_ATTEMPTS": "1"}
        answer = forge.extract(far.root, index, **env)
    assert answer["status"] == 2, answer["printed"]
    assert "Traceback" not in answer["printed"]
    assert answer["printed"].splitlines()[-1].startswith("error: ")
    assert not (far.root / "features.zarr").exists()
    assert not far.files("published")
    kept = [name for name in far.files("scratch") if name.startswith("fc7/c/")]
    assert len(kept) == 2
    gone = forge.extract(far.root, index, **env)  # nobody listens there any more
    assert gone["status"] == 2, gone["printed"]
    assert "Traceback" not in gone["printed"]
    answer = forge.extract(far.root, index, **far.env)
    assert answer["status"] == 0, answer["printed"]
    assert answer["forwarded"] == 290 - 64 * 2
    assert same_as(far.files("published"), reference)


def test_archives_and_weights_are_fetched_from_a_bucket_and_heads_train_on_a_store_there(
    workspace: Workspace, drawn: Path, tmp_path: Path, s3: str
) -> None:
    arrays = seeded_weights(weight_shapes("narrow", ["fc7"]), seed=7)
    np.savez(tmp_path / "w.npz", **arrays)
    filesystem, bucket = fsspec.core.url_to_fs(s3, use_listings_cache=False)
    for name in NAMES.values():
        filesystem.put_file(str(drawn / name), f"{bucket}/gtsrb/{name}")
    filesystem.put_file(str(tmp_path / "w.npz"), f"{bucket}/w.npz")
    sha256 = hashlib.sha256((tmp_path / "w.npz").read_bytes()).hexdigest()
    workspace.set("prepare", source=f"{s3}/gtsrb")
    workspace.set("base", weights=f"{s3}/w.npz", sha256=sha256)
    workspace.set("store", address=f"{s3}/features")
    workspace.repro("train@ridge", FC7CACHE_SCRATCH=f"{s3}/scratch")
    assert "digest" in (workspace.root / "data/features.zarr/address.json").read_text()
    assert json.loads((workspace.root / "results/training/ridge.json").read_text())["val_accuracy"]
    assert filesystem.find(f"{bucket}/scratch/trials")
    assert "sound" in workspace.run("stages", "verify", "data/features.zarr")
    listed = workspace.run("stages", "scratch", FC7CACHE_SCRATCH=f"{s3}/scratch")
    assert "290 rows, 5 of 5 shards" in listed
    shard = next(p for p in filesystem.find(f"{bucket}/features") if p.endswith("fc7/c/1/0"))
    data = bytearray(filesystem.cat_file(shard))
    data[100] ^= 1
    filesystem.pipe_file(shard, bytes(data))
    workspace.run("stages", "verify", "data/features.zarr", status=1)
    workspace.set("store", shard_rows=32)  # it is mended as it was, whatever is asked for by now
    repaired = workspace.run("stages", "repair", "data/features.zarr")
    assert "repaired; 64 images computed again" in repaired
    assert "sound" in workspace.run("stages", "verify", "data/features.zarr")
    workspace.run("stages", "prune", "--all", FC7CACHE_SCRATCH=f"{s3}/scratch")
    assert not filesystem.find(f"{bucket}/scratch")
    workspace.set("prepare", source=f"{s3}/nowhere")
    shutil.rmtree(workspace.root / "data/archives")
    printed = workspace.run("stages.prepare", status=2)
    assert f"cannot fetch {s3}/nowhere/" in printed
    assert "Traceback" not in printed


def test_two_at_once_in_one_bucket_make_the_same_store(
    far: Far,
    forge: Forge,
    index: pd.DataFrame,
    reference: dict[str, str],
    drawn: Path,
    tmp_path: Path,
    s3_server: S3,
) -> None:
    beside = Far(new_root(tmp_path / "beside", drawn), far.bucket, s3_server.env)
    other = Forge()
    other.extract(new_root(tmp_path / "warm", drawn), index.iloc[:16])  # so that both start at once
    with ThreadPoolExecutor() as pool:
        runs = [
            pool.submit(server.extract, run.root, index, **run.env)
            for server, run in ((forge, far), (other, beside))
        ]
    other.close()
    for run in runs:
        assert run.result()["status"] == 0, run.result()["printed"]
        assert run.result()["forwarded"] > 0  # neither waited for the other
    assert same_as(far.files("scratch"), reference)
    assert same_as(far.files("published"), reference)


def test_a_store_is_not_put_where_prune_would_find_it(
    far: Far, forge: Forge, index: pd.DataFrame
) -> None:
    answer = forge.extract(far.root, index, **far.env | {"FC7CACHE_SCRATCH": far.bucket})
    assert answer["status"] == 2
    assert "is inside scratch, which `fc7cache prune` empties" in answer["printed"]


def test_weights_that_want_credentials_are_passed_over(
    s3: str, tmp_path: Path, workspace: Workspace
) -> None:
    shapes = weight_shapes("narrow", ["conv1"])
    np.savez(tmp_path / "w.npz", **seeded_weights(shapes))
    sha256 = hashlib.sha256((tmp_path / "w.npz").read_bytes()).hexdigest()
    sources = [(f"{s3}/w.npz", sha256), (str(tmp_path / "w.npz"), sha256)]
    said = workspace.python(
        "import os\n"
        "for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'): del os.environ[name]\n"
        "from pipeline.weights import load_first_weights\n"
        f"print(*load_first_weights({sources!r}, {shapes!r}, print))\n"
    )
    assert f"passed over {s3}/w.npz" in said
    assert said.splitlines()[-1] == "conv1_W conv1_b"


def test_scratch_that_is_a_file_is_told(far: Far, forge: Forge, index: pd.DataFrame) -> None:
    (far.root / "taken").write_text("")
    answer = forge.extract(far.root, index, FC7CACHE_SCRATCH="taken")
    assert answer["status"] == 2
    (line,) = [said for said in answer["printed"].splitlines() if said.startswith("error: ")]
    assert "cannot be written to; set FC7CACHE_SCRATCH to a folder that can" in line
    assert "Traceback" not in answer["printed"]


def test_a_full_disk_is_no_object_store_that_does_not_answer() -> None:
    code = (
        "import os, s3fs\n"
        "from stages.console import run\n"
        "full = os.open('/dev/full', os.O_WRONLY)\n"
        "run(lambda: os.write(full, b'x'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: disk: No space left on device; make room and run again\n"


def test_scratch_of_an_unknown_kind_is_told(far: Far, forge: Forge, index: pd.DataFrame) -> None:
    answer = forge.extract(far.root, index, FC7CACHE_SCRATCH="nosuch://bucket/scratch")
    assert answer["status"] == 2
    assert answer["printed"].splitlines()[-1].startswith("error: nosuch://bucket/scratch: ")


@pytest.mark.parametrize("address", ["nosuch://bucket/s.zarr", "gs://bucket/s.zarr"])
def test_a_bucket_without_its_client_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(StoreError, match=r"install fc7cache\[s3\]"):
        open_store(address)
