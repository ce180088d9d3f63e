"""``predict`` in pieces: which files, which neighbours, what is printed and what the page holds."""

import base64
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from stores import make_store
from typer.testing import CliRunner

from cache.errors import DamagedError, StoreError
from cache.similar import most_similar
from cache.spec import Layout, fingerprint
from cache.store import FeatureStore, open_store
from pipeline.classes import CLASS_NAMES
from pipeline.errors import InputError
from pipeline.predicted import Neighbour, Predicted, render_predicted
from pipeline.thumbnails import thumbnail, write_thumbnails
from stages import __main__ as command
from stages import predict as stage
from stages.console import printable

EVIL = "<img src=x onerror=alert(1)>&'\".png"


# --- neighbours ---


def brute(
    features: dict[str, NDArray[Any]], queries: dict[str, NDArray[Any]], wanted: Any, k: int
) -> tuple[list[list[int]], list[list[float]]]:
    """One pair at a time, sorted by (rounded similarity, row)."""
    rows, cosines = [], []
    for q in range(len(next(iter(queries.values())))):
        found = []
        for row in np.flatnonzero(wanted):
            parts = []
            for layer in queries:
                a, b = (m.astype(float) for m in (queries[layer][q], features[layer][row]))
                parts.append(
                    a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b)) if a.any() and b.any() else 0
                )
            found.append((-round(float(np.mean(parts)), 6) + 0.0, int(row)))
        best = sorted(found)[:k]
        rows.append([row for _, row in best])
        cosines.append([-negative for negative, _ in best])
    return rows, cosines


def store_of(folder: Path, features: dict[str, NDArray[Any]], dtype: str) -> FeatureStore:
    layers = {name: block.shape[1] for name, block in features.items()}
    rows = len(next(iter(features.values())))
    make_store(folder, Layout(rows, layers, dtype, shard_rows=4, chunk_rows=2), features)
    return open_store(folder)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_neighbours_are_those_of_comparing_every_pair(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    rows, queries = data.draw(st.integers(1, 19)), data.draw(st.integers(1, 4))
    dtype = data.draw(st.sampled_from(["float32", "float16"]))
    # Few values: many rows are equal, parallel or zero.
    features = {
        layer: rng.integers(-1, 3, (rows, width)).astype(dtype)
        for layer, width in data.draw(st.sampled_from([{"a": 3}, {"a": 2, "b": 5}])).items()
    }
    asked = {
        layer: rng.integers(-1, 3, (queries, block.shape[1])).astype(np.float32)
        for layer, block in features.items()
    }
    wanted, k = rng.random(rows) < 0.7, data.draw(st.integers(1, 22))
    store = store_of(tmp_path_factory.mktemp("store") / "s.zarr", features, dtype)
    found, cosine = most_similar(store, asked, wanted, k)
    assert found.shape == cosine.shape == (queries, min(k, wanted.sum()))
    assert (found.tolist(), cosine.tolist()) == brute(features, asked, wanted, k)


def test_each_layer_counts_alike_and_equal_rows_come_in_order(tmp_path: Path) -> None:
    wide = np.zeros((9, 700), np.float32)
    wide[:, 0] = 1000
    narrow = np.zeros((9, 2), np.float32)
    narrow[:, 0] = 1e-3
    narrow[3] = 0, 1e-3
    store = store_of(tmp_path / "s.zarr", {"wide": wide, "narrow": narrow}, "float32")
    asked = {"wide": wide[:1], "narrow": narrow[3:4]}
    found, cosine = most_similar(store, asked, np.ones(9, bool), 4)
    assert found.tolist() == [[3, 0, 1, 2]]
    assert cosine.tolist() == [[1, 0.5, 0.5, 0.5]]
    found, _ = most_similar(store, {"narrow": narrow[3:4]}, np.ones(9, bool), 1)
    assert found.tolist() == [[3]]


def test_equal_rows_tie_wherever_they_lie(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    features = np.tile(rng.random((1, 333), np.float32), (23, 1))
    store = store_of(tmp_path / "s.zarr", {"a": features}, "float32")
    found, cosine = most_similar(store, {"a": rng.random((3, 333))}, np.arange(23) != 2, 5)
    assert found.tolist() == [[0, 1, 3, 4, 5]] * 3
    assert (np.ptp(cosine, axis=1) == 0).all()


def test_neighbours_of_what_does_not_fit_are_refused(tmp_path: Path) -> None:
    features = np.ones((9, 3), np.float32)
    store = store_of(tmp_path / "s.zarr", {"a": features}, "float32")
    every = np.ones(9, bool)
    with pytest.raises(StoreError, match="no layer 'b'; it has a"):
        most_similar(store, {"b": features}, every, 1)
    for queries, wanted, k in (
        ({"a": features}, every, 0),
        ({}, every, 1),
        ({"a": features}, every[1:], 1),
        ({"a": features[:, 1:]}, every, 1),
    ):
        with pytest.raises(ValueError, match=r"expected k of at least 1, a layer|core dimension"):
            most_similar(store, queries, wanted, k)
    found, cosine = most_similar(store, {"a": features}, ~every, 3)
    assert found.shape == cosine.shape == (9, 0)
    path = tmp_path / "s.zarr/a/c/1/0"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(DamagedError, match="a/c/1/0 is damaged"):
        most_similar(store, {"a": features}, every, 1)


# --- files ---


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("p/b.png", "p/a.PNG", "p/deep/er/c.jpg", "p/d[1].png", "p/d1.png", "q/e.ppm"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), "red").save(path)
    for name in ("notes.txt", "doc.pdf", "figure.eps"):
        (tmp_path / "p" / name).write_text("no image")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["p/b.png"], "p/b.png"),
        (["p/notes.txt"], "p/notes.txt"),  # as asked; it is refused when it is decoded
        (["p"], "p/a.PNG p/b.png p/d1.png p/d[1].png p/deep/er/c.jpg"),
        (["p/*.png"], "p/b.png p/d1.png p/d[1].png"),
        (["p/d[1].png"], "p/d[1].png"),
        (["p/d[12].png"], "p/d1.png"),
        (["./p/?.*", "p/b.png"], "p/a.PNG p/b.png"),
        (["**/*.jpg"], "p/deep/er/c.jpg"),
        (["p/**/c.*"], "p/deep/er/c.jpg"),
        (["[pq]"], "p/a.PNG p/b.png p/d1.png p/d[1].png p/deep/er/c.jpg q/e.ppm"),
        (["p/de*", "q", "p"], "p/deep/er/c.jpg q/e.ppm p/a.PNG p/b.png p/d1.png p/d[1].png"),
    ],
)
def test_files_folders_and_patterns(photos: Path, given: list[str], expected: str) -> None:
    assert [file.as_posix() for file in stage.image_files(given)] == expected.split(" ")
    absolute = [str(photos / text) for text in given]
    assert stage.image_files(absolute) == [photos / name for name in expected.split(" ")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("p/x.png", r"p/x\.png: no such image"),
        ("p/*.gif", r"p/\*\.gif: no image matches this pattern"),
        ("p/*.txt", r"p/\*\.txt: no image matches this pattern"),
        ("empt?", r"empt\?: no image matches this pattern"),
        ("empty", "empty: no images in this folder"),
    ],
)
def test_what_names_no_image_is_told(photos: Path, given: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        stage.image_files(["p/b.png", given])


# --- the head best on validation ---


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Three heads, of which ``third`` is not trained."""
    monkeypatch.chdir(tmp_path)
    for name, accuracy in (("first", 0.9), ("second", 0.95)):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "head.json").write_text("{}")
        write_training(name, json.dumps({"val_accuracy": accuracy}))
    return SimpleNamespace(heads={"first": {}, "second": {}, "third": {}})


def write_training(name: str, text: str) -> None:
    path = Path(f"results/training/{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_head_best_on_validation_is_taken(trained: Any) -> None:
    assert stage.best_head(trained) == "second"
    write_training("first", '{"val_accuracy": 0.95}')
    assert stage.best_head(trained) == "first", "of equals the first in params.yaml"
    write_training("first", '{"val_accuracy": 1}')
    write_training("third", '{"val_accuracy": 2}')
    assert stage.best_head(trained) == "first", "the third has no model"


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"val_accuracy": null}', '{"val_accuracy": "x"}']
)
def test_a_damaged_accuracy_is_told(trained: Any, text: str) -> None:
    write_training("second", text)
    with pytest.raises(InputError, match=r"second\.json: expected a JSON object with val_accuracy"):
        stage.best_head(trained)


def test_no_head_is_best_where_that_is_not_known(trained: Any) -> None:
    Path("results/training/second.json").unlink()
    with pytest.raises(InputError, match=r"second\.json: missing, .* `dvc repro`, or .* --head"):
        stage.best_head(trained)
    for name in ("first", "second"):
        Path(f"models/{name}/head.json").unlink()
    with pytest.raises(InputError, match="models: no trained head; run `dvc repro`"):
        stage.best_head(trained)


# --- the page ---


class Page(HTMLParser):
    """Tags with their attributes, and all text outside the style sheet."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] != "style":
            self.text += data


def jpeg(colour: str) -> bytes:
    return thumbnail(Image.new("RGB", (20, 10), colour))


def test_the_page_holds_everything_and_runs_nothing() -> None:
    neighbour = Neighbour(f"train/{EVIL}", "stop", 0.98765, jpeg("blue"))
    image = Predicted(EVIL, jpeg("red"), [("<b>yield", 0.75), ("stop", 0.0005)], [neighbour])
    html = render_predicted("<i>head", [image], ["a & b"])
    page = Page(html)
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    for attrs, whole in zip(pictures, (image.jpeg, neighbour.jpeg), strict=True):
        kind, _, data = str(attrs["src"]).partition(",")
        assert kind == "data:image/jpeg;base64"
        assert base64.b64decode(data) == whole
    for text in (
        EVIL,
        f"train/{EVIL}",
        "<b>yield",
        "<i>head",
        "75.00 %",
        "0.05 %",
        "0.9877",
        "a & b",
    ):
        assert text in page.text
    assert pictures[0]["alt"] == f"The image {EVIL}"
    assert not {"script", "b", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert not re.search(r"https?:|url\(|@import", html)
    policy = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert [a["style"] for tag, a in page.tags if tag == "i"] == ["width:75.00%", "width:0.05%"]
    assert "Most similar" not in render_predicted("h", [Predicted("a", b"", [], [])], [])


def test_names_are_printed_without_what_a_terminal_obeys() -> None:
    name = os.fsdecode(b"\x1b]0;x\x07 \xff Stra\xc3\x9fe\n\xe2\x80\xae.png")
    assert printable(name) == "\\x1b]0;x\\x07 \\udcff Straße\\n\\u202e.png"
    printable(name).encode()


# --- together, with a base and a head that can be read off the page ---

MADE_BY = {"weights": "file", "layers": ["mean", "spread"], "crop": "roi"}


def colours(images: Any) -> dict[str, NDArray[np.float32]]:
    images = np.asarray(images, np.float32)
    return {"spread": images.std(axis=(1, 2)) + 1, "mean": images.mean(axis=(1, 2))}


class Red:
    """A head that answers class 14 by the share of red."""

    classes_ = np.array([1, 14, 17])

    def predict_proba(self, blocks: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        mean, spread = blocks
        assert mean.shape == spread.shape
        red = mean[:, 0] / 255
        return np.stack([(1 - red) / 4, red, 3 * (1 - red) / 4], axis=1)


@pytest.fixture
def project(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of nine one-coloured images, the middle three of them test images."""
    shades = np.linspace(10, 250, 9)
    pixels = [np.full((4, 4, 3), (shade, 255 - shade, 40), np.uint8) for shade in shades]
    features = {layer: block.astype(np.float32) for layer, block in colours(pixels).items()}
    split = np.array(["train"] * 3 + ["test"] * 3 + ["train"] * 3)
    ids = [f"{part}/{row}" for row, part in enumerate(split)]
    columns = {"image_id": np.array(ids), "split": split, "label": np.arange(9) + 10}
    layout = Layout(9, {"spread": 3, "mean": 3}, shard_rows=4, chunk_rows=2)
    make_store(photos / "data/features.zarr", layout, features, None, columns, MADE_BY)
    small = [thumbnail(Image.fromarray(block)) for block in pixels]
    write_thumbnails(photos / "data/thumbnails.zip", zip(ids, small, strict=True))
    facts = {
        "features": ["mean", "spread"],
        "fingerprint": fingerprint(MADE_BY),
        "stand_in": False,
        "classes": list(CLASS_NAMES),
    }
    base = SimpleNamespace(
        made_by=lambda: MADE_BY,
        views=1,
        eye=SimpleNamespace(seen=lambda image: [np.asarray(image.resize((4, 4)))]),
        forward=lambda images: [colours([image[0] for image in images])],
    )
    params = SimpleNamespace(base=SimpleNamespace(seeded=True, crop="roi"), heads={"red": {}})
    monkeypatch.setattr(stage, "load_head", lambda folder: (Red(), facts))
    monkeypatch.setattr(stage, "load_base", lambda params: base)
    monkeypatch.setattr(command, "load_params", lambda: params)
    monkeypatch.setattr(stage, "best_head", lambda params: "red")
    return photos


def fc7cache(*args: str, status: int = 0) -> str:
    result = CliRunner().invoke(command.app, list(args))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.output


def test_predict_tells_signs_and_neighbours(project: Path) -> None:
    Image.new("RGB", (30, 20), (250, 5, 40)).save("p/b.png")
    Image.new("RGB", (30, 20), (100, 155, 40)).save("q/e.ppm")
    said = json.loads(fc7cache("predict", "p/b.png", "q", "--neighbours", "3", "--json"))
    assert (said["head"], said["seeded"], [*said["images"]]) == (
        "red",
        True,
        ["p/b.png", "q/e.ppm"],
    )
    best = said["images"]["p/b.png"]
    assert best[0] == {
        "class": 14,
        "name": "stop",
        "probability": pytest.approx(250 / 255, abs=1e-6),
    }
    assert [entry["class"] for entry in best] == [14, 17, 1]
    found = said["neighbours"]["p/b.png"]
    assert [entry["image_id"] for entry in found] == ["train/8", "train/7", "train/6"]
    assert found[0] == {
        "image_id": "train/8", "class": 18, "name": CLASS_NAMES[18], "similarity": 1.0,
    }  # fmt: skip
    # The nearest of all would be a test image.
    assert said["neighbours"]["q/e.ppm"][0]["image_id"] in ("train/2", "train/6")
    assert "neighbours" not in json.loads(fc7cache("predict", "q", "--json"))
    text = fc7cache("predict", "p/b.png", "--neighbours", "1")
    assert text.startswith("p/b.png (head red)\n   98.04 %  stop\n")
    assert f"  like train/8 ({CLASS_NAMES[18]}), cosine 1.0000\n" in text
    assert "seeded (stand-in) weights" in text
    assert "images here are taken whole" in text


def test_a_head_must_name_its_classes_and_those_of_the_store(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, facts = stage.load_head(Path("models/red"))
    for names, message in (
        (None, r"red: expected the names of its classes, got 0 \(an earlier version kept none\)"),
        (CLASS_NAMES[:17], "red: expected the names of its classes, got 17"),
    ):
        older = {k: v for k, v in facts.items() if k != "classes"}
        older |= {} if names is None else {"classes": list(names)}
        monkeypatch.setattr(stage, "load_head", lambda folder, older=older: (head, older))
        with pytest.raises(InputError, match=message):
            fc7cache("predict", "q")
    facts["classes"] = list(CLASS_NAMES[:18])
    monkeypatch.setattr(stage, "load_head", lambda folder: (head, facts))
    fc7cache("predict", "q")
    with pytest.raises(StoreError, match="has class 18, but the head knows 18 classes; run `dvc"):
        fc7cache("predict", "q", "--neighbours", "1")


def test_predict_writes_a_page(project: Path) -> None:
    Image.new("RGB", (900, 600), (250, 5, 40)).save(f"q/{EVIL}")
    said = fc7cache("predict", "q", "--neighbours", "2", "--html", "out/page.html")
    assert said.endswith("with the pictures: out/page.html\n")
    html = (project / "out/page.html").read_text(encoding="utf-8")
    page = Page(html)
    assert f"q/{EVIL}" in page.text
    assert "<img src=x" not in html
    pictures = [str(attrs["src"]) for tag, attrs in page.tags if tag == "img"]
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2]))).size for src in pictures
    ]
    assert sizes == [(320, 213), (4, 4), (4, 4), (9, 9), (4, 4), (4, 4)]
    for text in ("train/8", "seeded (stand-in) weights", "98.04 %", "by the head red"):
        assert text in page.text
    assert json.loads(fc7cache("predict", "q", "--json", "--html", "page.html"))
    assert "Most similar" not in (project / "page.html").read_text(encoding="utf-8")


def test_predict_needs_its_files_and_says_which(project: Path) -> None:
    (project / "data/thumbnails.zip").unlink()
    assert "like train" in fc7cache("predict", "q", "--neighbours", "1")
    with pytest.raises(InputError, match=r"data/thumbnails\.zip: no thumbnails"):
        fc7cache("predict", "q", "--neighbours", "1", "--html", "page.html")
    assert not Path("page.html").exists()
    fc7cache("predict", "q", "--html", "page.html")
    (project / "data/features.zarr").rename("aside")
    fc7cache("predict", "q")
    with pytest.raises(StoreError, match=r"data/features\.zarr: expected a feature store"):
        fc7cache("predict", "q", "--neighbours", "1")
    with pytest.raises(InputError, match=r"p/notes\.txt: expected an image"):
        fc7cache("predict", "p/notes.txt")
    for wrong in (("--neighbours", "-1"), ("--html", "q")):
        fc7cache("predict", "q", *wrong, status=2)
