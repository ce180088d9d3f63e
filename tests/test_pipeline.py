"""The whole graph under DVC, on drawn signs and a narrow base."""

import glob
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Workspace
from PIL import Image, ImageOps
from ruamel.yaml import YAML

from cache.store import open_store
from pipeline.archives import NAMES
from stages.demo import checksums

NAMES_OF_HEADS = ("softmax", "mlp", "logistic", "ridge", "nearest_mean", "neighbours")
HEADS = [f"train@{name}" for name in NAMES_OF_HEADS]
STUDIES = ["study@softmax", "study@ridge"]
RAN = re.compile(r"^Running stage '([\w@]+)'", re.MULTILINE)


def edit(workspace: Workspace, path: str) -> None:
    """Change a source file without changing what it does."""
    file = workspace.root / path
    file.write_text(file.read_text() + "\n# edited\n")


def summary(workspace: Workspace) -> dict[str, float]:
    return json.loads((workspace.root / "results/extract.json").read_text())


def shas(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_graph_goes_from_archives_to_a_report(finished: Workspace) -> None:
    assert RAN.findall(finished.printed) == ["prepare", "extract", *HEADS, *STUDIES, "compare"]
    assert not re.search(r"Warning|I0000|Traceback", finished.printed), finished.printed
    assert {k: summary(finished)[k] for k in ("rows", "forwarded", "reused", "duplicates")} == {
        "rows": 290,
        "forwarded": 290,
        "reused": 0,
        "duplicates": 0,
    }
    metrics = json.loads((finished.root / "results/metrics.json").read_text())
    for part, rows in (("test", 90), ("validation", 40)):
        assert set(metrics[part]) == set(NAMES_OF_HEADS)
        for figures in metrics[part].values():
            assert figures["rows"] == rows
            assert figures["accuracy"] == figures["correct"] / rows
            assert figures["accuracy_low"] < figures["accuracy"] < figures["accuracy_high"]
            assert figures["accuracy"] <= figures["top5"] <= 1
            assert {"macro_recall", "nll", "ece"} <= set(figures)
    assert metrics["test"]["softmax"]["seed_deviation"] >= 0
    assert metrics["test"]["logistic"]["accuracy"] > 0.5  # chance is 0.2
    for text in ("results/report.html", "results/comparison.txt"):
        assert "seeded (random) weights" in (finished.root / text).read_text()
    plots = json.loads(finished.run("dvc", "plots", "show", "--json"))
    assert not plots.get("errors")
    assert set(plots["data"]) == {
        *(f"results/live/{h}/plots/metrics/sweep/val_accuracy.tsv" for h in NAMES_OF_HEADS),
        *(
            f"results/live/{head}/plots/metrics/epoch/{key}.tsv"
            for head in ("softmax", "mlp")
            for key in ("loss", "accuracy", "val_loss", "val_accuracy")
        ),
        *(f"results/sweeps/{head}.csv" for head in metrics["test"]),
        *(f"results/confusion/{head}.csv" for head in metrics["test"]),
        "results/recall.csv",
    }


def test_only_what_is_stale_runs_again(finished: Workspace) -> None:
    assert RAN.findall(finished.repro()) == []
    finished.set("heads.mlp", hidden=8)
    assert RAN.findall(finished.run("dvc", "repro", "--dry")) == ["train@mlp", "compare"]
    finished.set("heads.mlp", hidden=32)
    finished.set("heads.ridge", alpha=1)
    dry = RAN.findall(finished.run("dvc", "repro", "--dry"))
    assert dry == ["train@ridge", "study@ridge", "compare"]
    finished.set("heads.ridge", alpha=[0.03, 0.1, 0.3, 1, 3, 10])
    finished.set("compare", confidence=0.9)
    assert RAN.findall(finished.run("dvc", "repro", "--dry")) == ["compare"]
    finished.set("compare", confidence=0.95)
    edit(finished, "pipeline/linear.py")
    assert RAN.findall(finished.run("dvc", "repro", "--dry")) == [*HEADS, *STUDIES]
    edit(finished, "pipeline/alexnet.py")
    assert RAN.findall(finished.repro("extract")) == ["extract"]
    assert summary(finished)["forwarded"] == 290  # the base did run, nothing came from scratch


def test_probabilities_are_those_of_the_saved_head(finished: Workspace) -> None:
    finished.python(
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from cache.store import open_store\n"
        "from pipeline.saved import load_head\n"
        "store = open_store('data/features.zarr')\n"
        "place = {name: row for row, name in enumerate(store.column('image_id'))}\n"
        f"for name in {NAMES_OF_HEADS}:\n"
        "    head, facts = load_head(Path('models') / name)\n"
        "    said = np.load(f'results/probabilities/{name}.npz')\n"
        "    rows = np.array([place[image] for image in said['test_id']])\n"
        "    proba = head.predict_proba([store.features(x, rows) for x in facts['features']])\n"
        "    np.testing.assert_allclose(said['test'][0][:, head.classes_], proba, atol=1e-6)\n"
        "    np.testing.assert_allclose(said['test'].sum(axis=2), 1, atol=1e-5)\n"
        "    assert not set(said['validation_id']) & set(said['test_id'])\n"
    )


def test_test_labels_change_nothing_before_the_comparison(
    finished: Workspace, tmp_path: Path
) -> None:
    made = {kind: shas(finished.root / kind) for kind in ("models", "results/probabilities")}
    before = (finished.root / "results/comparison.txt").read_text()
    source = YAML(typ="safe").load(finished.root / "params.yaml")["prepare"]["source"]
    lying = tmp_path / "lying"
    shutil.copytree(source, lying)
    with zipfile.ZipFile(Path(source) / NAMES["test_labels"]) as archive:
        (name,) = archive.namelist()
        header, *rows = archive.read(name).decode().splitlines()
    rows = [f"{row.rpartition(';')[0]};38" for row in rows]
    with zipfile.ZipFile(lying / NAMES["test_labels"], "w") as archive:
        archive.writestr(name, "\r\n".join([header, *rows]))
    finished.set("prepare", source=str(lying), md5=checksums(lying))
    heads = ["mlp", "logistic", "ridge", "neighbours"]  # one of each library, and what keeps rows
    for head in heads:
        shutil.rmtree(finished.root / "models" / head)
    assert len(RAN.findall(finished.repro(*(f"train@{head}" for head in heads)))) == 2 + len(heads)
    finished.run("stages.compare")
    assert (finished.root / "results/comparison.txt").read_text() != before
    for kind, files in made.items():
        assert shas(finished.root / kind) == files


@pytest.mark.slow
def test_heads_are_chosen_by_k_folds_of_several_layers_and_by_fine_tuning(
    finished: Workspace,
) -> None:
    finished.set("base", layers=["conv5", "pool5", "fc7"])
    finished.set("split", method="k_fold", folds=3)
    blocks = YAML(typ="safe").load(finished.root / "params.yaml")["heads"]
    ridge = blocks["ridge"]
    tuned = {
        "kind": "fine_tuned", "features": "pool5", "scaling": "none", "components": None,
        "start": "base", "dropout": 0.2, "learning_rate": 0.001, "weight_decay": 0,
        "batch_rows": 32, "epochs": 2, "out_of_core": True, "seeds": [0],
    }  # fmt: skip
    params = finished.root / "params.yaml"
    document = YAML(typ="safe").load(params)
    document["heads"] = {
        "one": ridge | {"features": "conv5"},
        "both": ridge | {"features": ["conv5", "fc7"], "scaling": "sqrt_l2"},
        "tuned": tuned,
    }
    document["study"]["heads"] = ["tuned"]
    YAML(typ="safe").dump(document, params)
    shutil.rmtree(finished.root / "models")
    shutil.rmtree(finished.root / "results")
    ran = RAN.findall(finished.repro())
    expected = ["extract", "train@both", "train@one", "train@tuned", "study@tuned", "compare"]
    assert ran[-6:] == expected  # `prepare` may come from DVC's own cache
    metrics = json.loads((finished.root / "results/metrics.json").read_text())
    assert {name: figures["rows"] for name, figures in metrics["validation"].items()} == {
        "one": 200,
        "both": 200,
        "tuned": 200,
    }
    sweep = pd.read_csv(finished.root / "results/sweeps/both.csv")
    assert len(sweep) == 6 * 3
    assert sweep.loc[sweep["chosen"], "fold"].tolist() == [1, 2, 3]
    assert "conv5+fc7" in (finished.root / "results/comparison.txt").read_text()
    assert not json.loads((finished.root / "results/training/both.json").read_text())["stand_in"]
    assert json.loads((finished.root / "results/training/tuned.json").read_text())["stand_in"]
    finished.set("heads.tuned", features="fc7")
    printed = finished.run("stages.train", "--head", "tuned", status=2)
    assert "AlexNet's fc6 expects pool5, got fc7" in printed


@pytest.mark.slow
def test_views_with_equalised_contrast_are_cached_averaged_and_predicted_by(
    finished: Workspace, drawn: Path
) -> None:
    contrast = {"clip": 3, "tiles": 4}
    finished.set("base", layers=["conv1", "conv2"], crop="roi", contrast=contrast, shift=0.05)
    path = finished.root / "params.yaml"
    document = YAML(typ="safe").load(path)
    ridge = document["heads"]["ridge"] | {"scaling": "sqrt_l2", "alpha": 0.1}
    document["heads"] = {"both": ridge | {"features": ["conv1", "conv2"]}}
    document["study"]["heads"] = ["both"]
    YAML(typ="safe").dump(document, path)
    shutil.rmtree(finished.root / "models")
    shutil.rmtree(finished.root / "results")
    assert "conv1, conv2, roi, contrast equalised, 5 views" in finished.repro()
    # The slow twin: one image after the other, one view after the other, no batch.
    finished.python(
        "import io, zipfile, numpy as np, pandas as pd\n"
        "from PIL import Image\n"
        "from scipy.special import softmax\n"
        "from cache.store import open_store\n"
        "from pipeline import alexnet, weights\n"
        "from pipeline.images import Contrast\n"
        "from pipeline.saved import load_head\n"
        "taps = ['conv1', 'conv2']\n"
        "given = weights.seeded_weights(alexnet.weight_shapes('narrow', taps))\n"
        "base = alexnet.build('narrow', given, taps)\n"
        "store = open_store('data/features.zarr')\n"
        "index = pd.read_csv('data/index.csv')\n"
        "head, _ = load_head(__import__('pathlib').Path('models/both'))\n"
        "said = np.load('results/probabilities/both.npz')\n"
        "place = said['test_id'].tolist()\n"
        f"archive = zipfile.ZipFile({str(drawn / NAMES['test'])!r})\n"
        "for row in (200, 240, 289):\n"
        "    line, scores = index.iloc[row], []\n"
        "    image = np.asarray(Image.open(io.BytesIO(archive.read(line.member))))\n"
        "    image = np.pad(image, ((50, 50), (50, 50), (0, 0)), 'edge')\n"
        "    w, h = line.roi_x2 - line.roi_x1 + 1, line.roi_y2 - line.roi_y1 + 1\n"
        "    names = ['', '_view1', '_view2', '_view3', '_view4']\n"
        "    for name, (x, y) in zip(names, [(0, 0), (1, 1), (-1, -1), (1, -1), (-1, 1)]):\n"
        "        left = line.roi_x1 + 50 + x * round(0.05 * w)\n"
        "        top = line.roi_y1 + 50 + y * round(0.05 * h)\n"
        "        cut = Image.fromarray(image[top : top + h, left : left + w])\n"
        "        seen = np.asarray(cut.resize((227, 227), Image.Resampling.BILINEAR))\n"
        "        out = base(Contrast(3, 4).equalized(seen)[None])\n"
        "        blocks = [np.asarray(out[tap]) for tap in taps]\n"
        "        for tap, block in zip(taps, blocks):\n"
        "            kept = store.features(tap + name, np.array([row]))\n"
        "            np.testing.assert_allclose(kept, block, rtol=1e-4, atol=1e-3)\n"
        "        scores.append(head.scores(blocks)[0])\n"
        "    proba = softmax(np.mean(scores, axis=0) / head.temperature_)\n"
        "    got = said['test'][0][place.index(line.image_id)][head.classes_]\n"
        "    np.testing.assert_allclose(got, proba, atol=1e-3)\n"
    )
    metrics = json.loads((finished.root / "results/metrics.json").read_text())
    assert metrics["test"]["both"]["accuracy"] > 0.5
    assert "5, shifted by 5 %" in (finished.root / "results/report.html").read_text()
    with zipfile.ZipFile(drawn / NAMES["test"]) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".ppm"))
        (finished.root / "one.ppm").write_bytes(archive.read(member))
    assert "one.ppm" in finished.run("stages", "predict", "one.ppm", "--neighbours", "2")
    verified = finished.run("stages", "verify", "data/features.zarr", "--recompute", "7")
    assert "conv2_view4: 7 images recomputed, largest relative error 0.0e+00" in verified


def test_features_are_those_of_a_plain_loop(finished: Workspace) -> None:
    plain = finished.python(
        "import zipfile, io, numpy as np, pandas as pd\n"
        "from PIL import Image\n"
        "from pipeline import alexnet, weights\n"
        "from stages.params import load_params\n"
        "shapes = alexnet.weight_shapes('narrow', ['fc7'])\n"
        "base = alexnet.build('narrow', weights.seeded_weights(shapes), ['fc7'])\n"
        "rows = pd.read_csv('data/index.csv').iloc[[0, 7, 199, 200, 289]]\n"
        "out = []\n"
        "for row in rows.itertuples():\n"
        "    part = 'Training' if row.split == 'train' else 'Test'\n"
        "    path = f'{load_params().prepare.source}/GTSRB_Final_{part}_Images.zip'\n"
        "    image = Image.open(io.BytesIO(zipfile.ZipFile(path).read(row.member)))\n"
        "    x = np.asarray(image.resize((227, 227), Image.Resampling.BILINEAR))[None]\n"
        "    out.append(np.asarray(base(x)['fc7'])[0])\n"
        "np.save('plain.npy', out)\n"
    )
    assert plain == ""
    store = open_store(finished.root / "data/features.zarr")
    got = store.features("fc7", np.array([0, 7, 199, 200, 289]))
    expected = np.load(finished.root / "plain.npy")
    apart = np.linalg.norm(got - expected, axis=1)
    assert (apart < 1e-5 * np.linalg.norm(expected, axis=1)).all()


def test_a_killed_extraction_goes_on_and_gives_the_same_bytes(finished: Workspace) -> None:
    whole = shas(finished.root / "data/features.zarr")
    for attempt in range(5):  # until a kill falls in the middle
        scratch = finished.root / f"scratch{attempt}"
        env = {"FC7CACHE_SCRATCH": str(scratch)}
        done = f"{scratch}/*/*.zarr/fc7/c/1/0"  # Path.glob fails on folders that vanish under it
        command = [sys.executable, "-m", "stages.extract"]
        process = subprocess.Popen(command, cwd=finished.root, env=os.environ | env)
        while process.poll() is None and not glob.glob(done):  # noqa: PTH207
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = len(list(scratch.rglob("fc7/c/*/0")))
        if 0 < kept < 5:
            break
    assert 0 < kept < 5
    finished.repro("-f", "-s", "extract", **env)
    assert summary(finished)["forwarded"] == 290 - 64 * kept
    assert summary(finished)["reused"] == 64 * kept
    assert shas(finished.root / "data/features.zarr") == whole


def test_what_is_left_of_a_removed_head_is_told_and_does_not_come_back(
    finished: Workspace,
) -> None:
    params = finished.root / "params.yaml"
    document = YAML(typ="safe").load(params)
    del document["heads"]["neighbours"]
    YAML(typ="safe").dump(document, params)
    printed = finished.run("stages.compare", status=2)
    assert "`rm -r models/neighbours results/live/neighbours results/*/neighbours.*`" in printed
    (command,) = re.findall(r"`(rm -r [^`]*)`", printed)
    subprocess.run(command, shell=True, cwd=finished.root, check=True)  # noqa: S602
    finished.repro()
    assert "neighbours" not in (finished.root / "results/comparison.txt").read_text()
    document["study"]["heads"] = ["softmax"]
    YAML(typ="safe").dump(document, params)
    printed = finished.run("stages.compare", status=2)
    assert "results/study/ridge.json: params.yaml asks for no such head here" in printed


def test_a_head_that_diverges_is_told_and_does_not_take_the_place_of_one_that_did_not(
    finished: Workspace,
) -> None:
    before = shas(finished.root / "models/mlp")
    finished.set("heads.mlp", learning_rate=1e38)
    printed = finished.run("stages.train", "--head", "mlp", status=2)
    assert "error: heads.mlp: training diverged" in printed
    assert "Traceback" not in printed
    assert shas(finished.root / "models/mlp") == before


def test_a_git_repository_without_a_commit_is_told(finished: Workspace) -> None:
    subprocess.run(["git", "init", "--quiet", "."], cwd=finished.root, check=True)
    config = finished.root / ".dvc/config"
    config.write_text(config.read_text().replace("no_scm = true", ""))
    printed = finished.run("stages.train", "--head", "ridge", status=2)
    assert "error: DVCLive: Empty git repo; expected a git commit" in printed


def test_settings_that_disagree_with_the_store_are_named(finished: Workspace) -> None:
    finished.set("base", crop="roi")
    printed = finished.run("stages.train", "--head", "softmax", status=2)
    assert "made with crop 'full', but params.yaml says 'roi'" in printed
    assert "Traceback" not in printed


def test_bad_settings_end_with_one_line_and_nothing_half_written(finished: Workspace) -> None:
    before = shas(finished.root / "data/features.zarr")
    for section, values, message in (
        ("base", {"layers": ["fc9"]}, "no layer 'fc9' to read; choose from conv1"),
        ("base", {"weights": "none.npz", "layers": ["fc7"]}, "none.npz: no such file"),
        ("store", {"chunk_rows": 60}, "must be a multiple of"),
        ("base", {"wieghts": 1}, "did you mean 'weights'?"),
    ):
        if section == "store":
            finished.set("base", weights="seeded")
        finished.set(section, **values)
        printed = finished.run("stages.extract", status=2)
        errors = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert message in errors[0]
        assert "Traceback" not in printed
        assert shas(finished.root / "data/features.zarr") == before


def test_changed_archives_cost_the_new_images_only(finished: Workspace, tmp_path: Path) -> None:
    index = pd.read_csv(finished.root / "data/index.csv")
    source = YAML(typ="safe").load(finished.root / "params.yaml")["prepare"]["source"]
    changed = tmp_path / "changed"
    changed.mkdir()
    with zipfile.ZipFile(Path(source) / NAMES["train"]) as archive:
        members = {name: archive.read(name) for name in reversed(archive.namelist())}
    track = "GTSRB/Final_Training/Images/00014/00000_"
    rows = members[csv := "GTSRB/Final_Training/Images/00014/GT-00014.csv"].decode().splitlines()
    kept = [row for row in rows if not row.startswith("00000_")]  # eight images dropped
    for frame, old in ((8, 0), (9, 1)):  # two added: upside down, so as to be new
        image = Image.open(io.BytesIO(members[f"{track}{old:05}.ppm"]))
        ppm = io.BytesIO()
        ImageOps.flip(image).save(ppm, "PPM")
        members[f"{track.replace('00000_', '00001_')}{frame:05}.ppm"] = ppm.getvalue()
        listed = next(row for row in rows if row.startswith(f"00000_{old:05}"))
        kept.append(listed.replace(f"00000_{old:05}", f"00001_{frame:05}"))
    members[csv] = "\r\n".join(kept).encode()
    with zipfile.ZipFile(changed / NAMES["train"], "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    for part in ("test", "test_labels"):
        shutil.copyfile(Path(source) / NAMES[part], changed / NAMES[part])
    finished.set("prepare", source=str(changed), md5=checksums(changed))
    finished.repro("extract")
    assert {k: summary(finished)[k] for k in ("rows", "forwarded", "reused")} == {
        "rows": len(index) - 6,
        "forwarded": 2,
        "reused": len(index) - 8,
    }
    grown = shas(finished.root / "data/features.zarr")
    finished.repro("-f", "-s", "extract", FC7CACHE_SCRATCH=str(tmp_path / "empty"))
    assert summary(finished)["forwarded"] == len(index) - 6
    assert shas(finished.root / "data/features.zarr") == grown


MANY = """
from stages import extract, shards
from stages.console import run

shards.usual_workers = lambda: 5  # as on a machine with as many cores: processes

if __name__ == "__main__":
    run(extract.main, "whole shards are kept")
"""


def test_processes_read_what_threads_do_and_time_adds_up(finished: Workspace) -> None:
    store = finished.root / "data/features.zarr"
    kept = shas(store)
    for folder in (store, finished.root / "scratch"):
        shutil.rmtree(folder)
    (finished.root / "many.py").write_text(MANY)
    finished.run("many")
    assert shas(store) == kept
    found = json.loads((finished.root / "results/extract.json").read_text())
    parts = found["time"]
    beside = {"readers_reading", "readers_decoding", "writer_writing"}
    assert min(parts[name] for name in beside) > 0
    whole = sum(spent for name, spent in parts.items() if name not in beside)
    assert abs(whole - found["seconds"]) < 0.05
    assert min(parts.values()) >= 0


def test_processes_stop_in_one_line_when_told_to(finished: Workspace) -> None:
    shutil.rmtree(finished.root / "scratch")
    (finished.root / "many.py").write_text(MANY)
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "many"],
        cwd=finished.root,
        env=finished.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    while "images to forward" not in (line := process.stdout.readline()):
        assert line, "it ended"
    os.killpg(process.pid, signal.SIGINT)  # as ^C in a terminal does: to all of them
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "whole shards are kept" in printed
    assert "Traceback" not in printed
