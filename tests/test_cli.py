"""The ``fc7cache`` command, on a finished run."""

import json
import shutil
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Workspace
from typer.testing import CliRunner, Result

from cache.errors import StoreError
from cache.pointer import write_pointer
from cache.store import open_store
from pipeline.archives import NAMES
from pipeline.errors import InputError
from stages.__main__ import app

STORE = "data/features.zarr"


@pytest.fixture
def here(finished: Workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished.root)
    return finished.root


def fc7cache(*args: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, list(args))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # may be read-only, and linked from elsewhere
    path.write_bytes(data)


def test_info_says_what_is_in_the_store(here: Path) -> None:
    said = json.loads(fc7cache("info", STORE, "--json").output)
    features = open_store(STORE).features("fc7")
    layer = said["layers"]["fc7"]
    assert (said["rows"], said["made_by"]["variant"], layer["features"]) == (290, "narrow", 512)
    assert layer["mean"] == pytest.approx(features.mean(), rel=1e-5)
    assert layer["zero"] == pytest.approx((features == 0).mean())
    assert sum(layer["histogram"]) == (features != 0).sum()
    text = fc7cache("info", STORE).output
    assert "290 (90 test, 200 train)" in text
    assert said["fingerprint"] in text


def test_verify_finds_what_is_wrong_and_repair_mends_it(here: Path) -> None:
    whole = contents(here / STORE)
    assert "sound" in fc7cache("verify", STORE).output
    recomputed = json.loads(fc7cache("verify", STORE, "--recompute", "20", "--json").output)
    assert recomputed["largest_relative_error"] == {"fc7": 0.0}
    assert fc7cache("repair", STORE).output.endswith("nothing to repair\n")

    flip(here / STORE / "fc7/c/2/0")
    shutil.rmtree("scratch")
    found = json.loads(fc7cache("verify", STORE, "--json", status=1).output)
    assert len(found["problems"]) == 1
    assert "fc7/c/2/0 is damaged" in found["problems"][0]
    assert "64 images computed again" in fc7cache("repair", STORE).output
    assert contents(here / STORE) == whole


def test_a_store_at_an_address_is_verified_and_repaired(here: Path) -> None:
    address, memory = "memory://bucket/features.zarr", fsspec.filesystem("memory")
    whole = contents(here / STORE)
    for key, data in whole.items():
        memory.pipe_file(f"/bucket/features.zarr/{key}", data)
    assert "sound" in fc7cache("verify", address).output
    assert fc7cache("diff", STORE, address).output.endswith("equal\n")
    shard = bytearray(whole["fc7/c/1/0"])
    shard[40] ^= 4
    memory.pipe_file("/bucket/features.zarr/fc7/c/1/0", bytes(shard))
    memory.rm("/bucket/features.zarr/fc7/c/4/0")
    assert "fc7/c/1/0 is damaged" in fc7cache("verify", address, status=1).output
    assert f"{address}: repaired" in fc7cache("repair", address).output
    assert {key: memory.cat_file(f"/bucket/features.zarr/{key}") for key in whole} == whole
    assert "sound" in fc7cache("verify", address).output


def test_a_store_that_pointers_name_is_mended_as_it_was_or_left(finished: Workspace) -> None:
    shared, store = finished.root.parent / "shared/features.zarr", finished.root / STORE
    shared.parent.mkdir()
    store.rename(shared)
    whole = contents(shared)
    write_pointer(store, str(shared), open_store(shared).attrs["digest"])
    shutil.rmtree(finished.root / "scratch")
    metadata = shared / "label/zarr.json"
    metadata.write_text(metadata.read_text().replace('"attributes": {', '"attributes": {"x": 1'))
    damaged = contents(shared)
    assert damaged != whole
    # As on another kind of machine: JAX rounds otherwise.
    said = finished.run("stages", "repair", STORE, status=2, KERAS_BACKEND="jax")
    assert "would put another store in its place, which others may rely on" in said
    assert contents(shared) == damaged
    # It is asked here, and so computes here: nobody else is.
    said = finished.run("stages", "repair", STORE, FC7CACHE_WORKERS="tcp://127.0.0.1:1")
    assert f"{STORE}: repaired; 290 images computed again" in said
    assert contents(shared) == whole
    assert "sound" in finished.run("stages", "verify", STORE)


def test_verify_holds_the_store_against_the_index(here: Path) -> None:
    index = pd.read_csv("data/index.csv", keep_default_na=False)
    index.loc[7, "label"] = 3
    index.to_csv("data/index.csv", index=False)
    said = fc7cache("verify", STORE, status=1).output
    assert "column label: 1 rows differ from the index, the first is row 7" in said


def test_recompute_notices_features_of_other_pixels(here: Path) -> None:
    from cache.publish import publish
    from cache.spec import Layout
    from cache.writer import create_store

    store = open_store(STORE)
    columns = {name: store.column(name) for name in store.columns}
    writer = create_store(here / "other.zarr", Layout(290, {"fc7": 512}), store.made_by, columns)
    writer.write(0, {"fc7": store.features("fc7")[::-1]})
    writer.finish()
    publish(writer, here / STORE)
    said = fc7cache("verify", STORE, "--recompute", "5", status=1).output
    assert "recomputed rows differ" in said


def test_diff_is_by_image_and_within_a_tolerance(here: Path) -> None:
    shutil.copytree(STORE, "same.zarr")
    assert fc7cache("diff", STORE, "same.zarr").output.endswith("equal\n")
    (here / "same.zarr/fc7/c/0/0").unlink()
    with pytest.raises(StoreError, match="1 of 5 shards are lost"):
        fc7cache("diff", STORE, "same.zarr")


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_export_reads_back_equal(here: Path, form: str) -> None:
    fc7cache("export", STORE, "--layer", "fc7", "--format", form)
    store = open_store(STORE)
    if form == "npz":
        with np.load("fc7.npz", allow_pickle=False) as arrays:
            features, label = arrays["features"], arrays["label"]
    else:
        table = pd.read_parquet("fc7.parquet")
        features, label = np.stack(table["features"].to_list()), table["label"].to_numpy()
    np.testing.assert_array_equal(features, store.features("fc7"))
    np.testing.assert_array_equal(label, store.column("label"))


@pytest.mark.parametrize(("scaling", "loss"), [("sqrt_l2", 0.02), ("standardize", 0.02)])
def test_reduced_features_are_those_of_a_principal_component_analysis(
    here: Path, scaling: str, loss: float
) -> None:
    fc7cache(*f"export {STORE} --layer fc7 --components 150 --scaling {scaling}".split())
    store = open_store(STORE)
    with np.load("fc7.npz", allow_pickle=False) as arrays:
        got = dict(arrays)
    assert got["features"].dtype == got["basis"].dtype == np.float16
    assert got["features"].shape == (290, 150)
    assert got["layers"].tolist() == ["fc7"]
    np.testing.assert_array_equal(got["label"], store.column("label"))
    x = store.features("fc7").astype(float)
    if scaling == "sqrt_l2":
        x = np.sqrt(x) / np.linalg.norm(np.sqrt(x), axis=1, keepdims=True)
    else:
        x = x * got["scale"]
    train = store.column("split") == "train"
    np.testing.assert_allclose(got["mean"], x[train].mean(axis=0), rtol=1e-3, atol=1e-5)
    x -= x[train].mean(axis=0)
    # What is lost is little more than what any 150 directions must lose; anyone can do it again.
    of = got["features"].astype(float)
    left = ((x[train] - of[train] @ got["basis"].T) ** 2).sum() / (x[train] ** 2).sum()
    best = (np.linalg.svd(x[train], compute_uv=False)[150:] ** 2).sum() / (x[train] ** 2).sum()
    assert best <= left < best + loss
    np.testing.assert_allclose(of, x @ got["basis"], rtol=1e-3, atol=1e-3 * abs(of).max())


def test_a_reduction_that_cannot_be_is_told(here: Path) -> None:
    for more in (
        "--layer fc7 --components 3 --format parquet",
        "--layer fc7 --layer fc6",
        "--layer fc7 --layer fc7 --components 3",
    ):
        with pytest.raises(InputError, match="several, each once, with --components, as npz"):
            fc7cache(*f"export {STORE} {more}".split())
    with pytest.raises(StoreError, match="no layer 'fc6'"):
        fc7cache(*f"export {STORE} --layer fc6 --components 3".split())
    assert not list(here.glob("*.npz"))


def test_predict_agrees_with_compare(here: Path, drawn: Path) -> None:
    with zipfile.ZipFile(drawn / NAMES["test"]) as archive:
        archive.extractall(here / "signs", [f"GTSRB/Final_Test/Images/{n:05}.ppm" for n in (3, 4)])
    said = json.loads(fc7cache("predict", "signs", "--head", "logistic", "--json").output)
    listed = pd.read_csv("results/predictions/logistic.csv").set_index("image_id")
    assert len(said["images"]) == 2
    for file, best in said["images"].items():
        row = listed.loc[f"test/{Path(file).stem}"]
        assert best[0]["class"] == row["predicted"]
        assert best[0]["probability"] == pytest.approx(row["probability"], abs=1e-4)
        assert len(best) == 5
    text = fc7cache("predict", "signs/GTSRB/Final_Test/Images/00003.ppm").output
    assert "seeded (stand-in) weights" in text


def test_predict_refuses_what_it_cannot_do(here: Path, finished: Workspace) -> None:
    (here / "text.png").write_text("no image")
    for args, message in (
        (("none.png",), "none.png: no such image"),
        (("text.png",), "text.png: expected an image"),
        (("text.png", "--head", "svm"), "models/svm: no trained head"),
    ):
        with pytest.raises(InputError, match=message):
            fc7cache("predict", *args)
    finished.set("base", crop="roi")
    with pytest.raises(InputError, match=r"with crop 'full', but params.yaml makes 'roi'"):
        fc7cache("predict", "text.png")


def test_classify_names_imagenet_classes(here: Path, finished: Workspace) -> None:
    finished.set("base", variant="torchvision")
    finished.python("from PIL import Image; Image.new('RGB', (60, 40), 'red').save('red.png')")
    said = json.loads(fc7cache("classify", "red.png", "--json").output)
    assert said["seeded"]
    assert len(said["images"]["red.png"]) == 5
    finished.set("base", variant="narrow")
    with pytest.raises(InputError, match=r"narrow has 125 classes, not ImageNet's 1000"):
        fc7cache("classify", "red.png")


def test_scratch_is_listed_and_pruned(here: Path) -> None:
    said = json.loads(fc7cache("scratch", "--json").output)
    (entry,) = said["stores"]
    assert entry["fingerprint"] == open_store(STORE).fingerprint
    assert entry["shards"] == entry["of_shards"] == 5
    assert said["trials_nbytes"] > 10_000
    assert "narrow (seeded weights), fc7, crop full, 290 rows" in fc7cache("scratch").output
    assert fc7cache("prune", "--older-than", "1").output.startswith("removed 0 stores")
    assert json.loads(fc7cache("scratch", "--json").output) == said
    fc7cache("prune", status=2)
    foreign = here / "scratch" / "other_team" / "climate.zarr"
    foreign.mkdir(parents=True)
    assert fc7cache("prune", "--all").output.startswith("removed 1 stores")
    assert foreign.exists()
    assert json.loads(fc7cache("scratch", "--json").output)["stores"] == []
    assert json.loads(fc7cache("scratch", "--json").output)["trials_nbytes"] == 0
    assert "sound" in fc7cache("verify", STORE).output


def test_the_installed_command_ends_a_mistake_with_one_line(workspace: Workspace) -> None:
    printed = workspace.run("stages", "info", "none.zarr", status=2)
    assert printed.startswith("error: none.zarr: expected a feature store, found none")
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("example", "begins", "ends"),
    [
        ("linear_probe", "ridge on fc7: ", "of 90 test images\n"),
        ("linear_svc", "C 0.3: ", "% on tracks held out\n"),
        ("notebook", "ridge on fc7: ", "% of the rows it was trained on\n"),
    ],
)
def test_the_examples_run(finished: Workspace, example: str, begins: str, ends: str) -> None:
    shutil.copytree(ROOT / "examples", finished.root / "examples")
    printed = finished.python(
        "import runpy, sys; sys.path.insert(0, '.'); sys.argv = ['x']\n"
        f"runpy.run_path('examples/{example}.py')"
    )
    assert printed.startswith(begins)
    assert printed.endswith(ends)
