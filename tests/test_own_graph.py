"""Own images through the whole graph by one setting: listed in a CSV, and in folders."""

import csv
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Workspace
from PIL import Image
from ruamel.yaml import YAML
from sklearn.datasets import load_digits

from pipeline.camera import film_track
from pipeline.classes import Classes, read_classes
from pipeline.drawing import draw_sign
from pipeline.errors import InputError
from pipeline.scores import track_interval, wilson
from stages import compare, extract, prepare, study, train

SIGNS = {"<b>stop": 14, "priority": 12, "no entry, none": 17}
TRACKS, FRAMES = 6, 4


def film(root: Path) -> None:
    """Drawn signs as ROOT/images/CLASS/GROUP/*.png, and ROOT/list.csv of them."""
    rows = []
    for name, label in SIGNS.items():
        sign = draw_sign(label)
        for track in range(TRACKS):
            folder = root / f"images/{name}/{track}"
            folder.mkdir(parents=True)
            frames = film_track(sign, FRAMES, np.random.default_rng([label, track]))
            for k, frame in enumerate(frames):
                frame.image.save(folder / f"{k}.png")
                path = f"images/{name}/{track}/{k}.png"
                split = "test" if track % 3 == 2 else "train"
                rows.append([path, name, f"{label} {track}", split, *frame.roi])
    with (root / "list.csv").open("w", newline="") as file:
        header = ["path", "label", "group", "split", "roi_x1", "roi_y1", "roi_x2", "roi_y2"]
        csv.writer(file).writerows([header, *rows])


def quick(workspace: Workspace, source: str) -> None:
    """Two heads that take no time, on the images of a source."""
    workspace.set("prepare", source=source)
    path, yaml = workspace.root / "params.yaml", YAML()
    params = yaml.load(path)
    params["heads"] = {name: params["heads"][name] for name in ("ridge", "nearest_mean")}
    params["split"]["val_fraction"] = 0.5
    params["study"]["heads"] = ["ridge"]
    yaml.dump(params, path)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_csv_goes_through_the_whole_graph(workspace: Workspace) -> None:
    root = workspace.root
    film(root / "own")
    quick(workspace, "own/list.csv")
    said = workspace.repro()
    assert "48 training images of 12 groups, 24 test images" in said
    index = pd.read_csv(root / "data/index.csv", keep_default_na=False)
    # A comma and a tag in names are names.
    names = sorted(SIGNS)
    assert read_classes(root / "data/classes.json") == Classes("own", tuple(names), {})
    assert (index["label"].map(names.__getitem__) == index["member"].str.split("/").str[1]).all()
    assert (index["track"] >= 0).all()
    assert (index.groupby("track").size() == FRAMES).all()
    assert (index["roi_x1"] > 0).all()
    assert read_json(root / "results/extract.json")["forwarded"] == len(index)

    # The test interval is the bootstrap over groups, as that of validation.
    metrics = read_json(root / "results/metrics.json")
    predictions = pd.read_csv(root / "results/predictions/ridge.csv")
    found = predictions[predictions["split"] == "test"]
    track = index.set_index("image_id")["track"].loc[found["image_id"]].to_numpy()
    right = (found["label"] == found["predicted"]).to_numpy()
    stated = metrics["test"]["ridge"]
    bounds = stated["accuracy_low"], stated["accuracy_high"]
    assert bounds == track_interval(right.astype(float), track)
    assert bounds != (wilson(int(right.sum()), len(right)).low, wilson(int(right.sum()), 24).high)

    text = (root / "results/comparison.txt").read_text()
    page = (root / "results/report.html").read_text()
    assert "validation (groups)" in text
    assert "test (groups)" in text
    assert "a random split of images would claim" in text
    assert "&lt;b&gt;stop" in page
    assert "12 in training; 6 in test" in page
    for theirs in ("Traffic", "Stallkamp", "official test", "not published"):
        assert theirs not in text + page

    # Models alone name the classes.
    shutil.move(root / "own" / index["member"][1], root / "asked.png")
    shutil.rmtree(root / "data")
    shutil.rmtree(root / "own")
    said = workspace.run("stages", "predict", "asked.png", "--head", "ridge", "--json")
    answer = json.loads(said[said.index("{") :])["images"]["asked.png"]
    assert {entry["name"] for entry in answer} == set(names)


@pytest.mark.slow
def test_the_example_takes_folders_through_the_whole_graph(workspace: Workspace) -> None:
    root = workspace.root
    shutil.copytree(ROOT / "examples", root / "examples")
    shutil.copyfile(ROOT / ".dvc/config", root / ".dvc/config")
    done = subprocess.run(
        [sys.executable, "examples/digits.py"],
        cwd=root,
        env=workspace.env(PYTHONPATH=str(root)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("digits: report -> digits/results/report.html\n")
    index = pd.read_csv(root / "digits/data/index.csv")
    assert index["split"].value_counts().to_dict() == {"train": 1438, "test": 359}
    truth = load_digits().target[index["member"].str[2:6].astype(int)]
    assert (truth == index["label"]).all()
    test = read_json(root / "digits/results/metrics.json")["test"]["ridge"]
    assert test["accuracy"] > 0.9
    # Every image is a group of its own.
    assert test["accuracy_low"] == wilson(test["correct"], test["rows"]).low


def draw_persons(root: Path, people: int, labels: Sequence[str], images: int) -> None:
    """Noise as ROOT/images/*.png, and ROOT/list.csv of it: every person shows every class."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    rows = []
    for person, label, k in itertools.product(range(people), labels, range(images)):
        path = f"images/{person}_{label}_{k}.png"
        pixels = rng.integers(0, 256, (20 + k, 20, 3), np.uint8)
        Image.fromarray(pixels).save(root / path)
        rows.append([path, label, f"person {person}" if images > 1 else ""])
    with (root / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "group"], *rows])


STAGES = (
    (prepare, ""), (extract, ""), (train, "ridge"), (train, "nearest_mean"), (study, "ridge"),
    (compare, ""),
)  # fmt: skip


@pytest.mark.parametrize("images", [3, 1])
def test_persons_go_through_every_stage_with_the_default_split(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    images: int,
) -> None:
    root = workspace.root
    draw_persons(root / "own", 8, ("frown", "smile", "wink"), images)
    quick(workspace, "own/list.csv")
    workspace.set("split", val_fraction=0.2)
    workspace.set("study", fractions=[0.1, 0.5])
    monkeypatch.chdir(root)
    for stage, head in STAGES:
        monkeypatch.setattr(sys, "argv", ["stage", *(["--head", head] if head else [])])
        stage.main()
    index = pd.read_csv(root / "data/index.csv")
    validation = pd.read_csv(root / "results/predictions/ridge.csv").query("split == 'validation'")
    track = index.set_index("image_id")["track"]
    said = capsys.readouterr().out
    text = (root / "results/comparison.txt").read_text()
    page = (root / "results/report.html").read_text()
    if images > 1:  # of one person each
        assert index.groupby("split")["track"].nunique().to_dict() == {"test": 2, "train": 6}
        assert track.loc[validation["image_id"]].nunique() == 2
        for part in ("validation", "test"):
            caution = f"The {part} interval is over 2 groups: too few, it is too short to be belie"
            assert caution in text
            assert caution in page
    # Of images on their own, held out at random or by group is the same.
    for where, claim in (
        (said, "a random split of images would claim"),
        (text, "a random split of images would claim"),
        (page, 'id="leak"'),
    ):
        assert (claim in where) == (images > 1)
    assert 'id="growth"' in page
    if images == 1:
        assert "too short to be believed" not in text + page


@pytest.mark.parametrize("more", [0, 1])
def test_prepare_says_when_the_sheet_has_not_every_class(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: int,
) -> None:
    monkeypatch.setattr("pipeline.contact.MOST_CLASSES", 3)
    monkeypatch.setattr("stages.prepare.MOST_CLASSES", 3)
    draw_persons(workspace.root / "own", 4, "abcd"[: 3 + more], 1)
    workspace.set("prepare", source="own/list.csv")
    monkeypatch.chdir(workspace.root)
    prepare.main()
    said = capsys.readouterr().out
    assert ("3 of 4 classes, at a glance" in said) == bool(more)
    assert ("what goes in, at a glance" in said) == (not more)


def test_a_mistake_in_ones_images_is_one_line(workspace: Workspace) -> None:
    film(workspace.root / "own")
    quick(workspace, "own/images")
    (workspace.root / "own/images/priority/notes.txt").touch()
    said = workspace.run("stages.prepare", status=2)
    assert said.splitlines()[-1].startswith("error: own/images/priority/notes.txt: not an image")
    assert not (workspace.root / "data/index.csv").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no list of classes; run `dvc repro prepare`"),
        ("{", "not a list of classes .*; run `dvc repro -f prepare`"),
        ('{"dataset": "own", "names": ["a", 1], "families": {}}', "not a list of classes"),
        ('{"dataset": "mine", "names": ["a"], "families": {}}', "not a list of classes"),
        ('{"names": ["a"], "families": {}}', "not a list of classes"),
    ],
)
def test_a_list_of_classes_that_is_none_is_told(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "classes.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_classes(path)
    assert "\n" not in str(error.value)
