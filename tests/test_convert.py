"""``fc7cache convert-weights``: any format in, the same plain arrays out."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from typer.testing import CliRunner, Result
from weight_files import write_caffemodel, write_pth

from pipeline.alexnet import weight_shapes
from pipeline.errors import InputError
from pipeline.weights import Arrays, load_weights, seeded_weights, weights_digest
from stages import convert
from stages.__main__ import app
from stages.base import load_base
from stages.params import Base, load_params

SHAPES = weight_shapes("narrow", ["fc8"])


@pytest.fixture(scope="module")
def given() -> Arrays:
    return seeded_weights(SHAPES)


@pytest.fixture
def files(tmp_path: Path, given: Arrays, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The same weights in every format, in the working directory."""
    monkeypatch.chdir(tmp_path)
    pairs = {name[:-2]: [given[name], given[f"{name[:-2]}_b"]] for name in given if "_W" in name}
    np.save("w.npy", pairs, allow_pickle=True)  # type: ignore[arg-type]
    np.savez("w.npz", **given)  # type: ignore[arg-type]
    write_caffemodel(Path("w.caffemodel"), given, legacy=True)
    write_pth(Path("w.pth"), given)
    return {path.suffix: path for path in Path().iterdir()}


def run(*args: str) -> Result:
    result = CliRunner().invoke(app, ["convert-weights", *args])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_format_becomes_the_same_file(files: dict[str, Path], given: Arrays) -> None:
    made = set()
    for suffix, path in files.items():
        out = Path(f"made/from{suffix}.npz")
        said = json.loads(run(str(path), str(out), "--sha256", sha256(path), "--json").output)
        assert said["sha256"] == sha256(out)
        assert said["source"] == {"path": str(path), "sha256": sha256(path), "published_as": None}
        assert (said["variant"], said["deepest"]) == ("narrow", "fc8")
        assert {name: tuple(shape) for name, shape in said["shapes"].items()} == SHAPES
        loaded = load_weights(said["weights"], said["sha256"], SHAPES)
        assert weights_digest(loaded) == weights_digest(given)
        made.add(said["sha256"])
    assert len(made) == 1
    assert len(list(Path("made").iterdir())) == len(files)  # nothing half-written beside


def test_what_it_prints_can_go_into_params(files: dict[str, Path]) -> None:
    text = run("w.pth", "out.npz").output
    assert "  fc6_W    1152 × 512\n" in text
    assert "no published file whose digest is known here" in text
    found = re.search(r"(?s)\nbase:\n.*", text)
    assert found
    assert found[0] == (
        f"\nbase:\n  variant: narrow\n  weights: out.npz\n  sha256: {sha256(Path('out.npz'))}\n"
    )


def test_a_published_file_is_named_by_its_digest(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = hashlib.sha1(files[".caffemodel"].read_bytes(), usedforsecurity=False).hexdigest()
    assert all(re.fullmatch("[0-9a-f]{8,64}", digest) for _, digest in convert._PUBLISHED)
    monkeypatch.setitem(convert._PUBLISHED, ("sha1", own), "Caffe's own")
    assert "by its digest Caffe's own" in run("w.caffemodel", "out.npz").output
    assert "no published file" in run("w.pth", "out.npz").output


def test_a_hash_is_the_same_in_upper_case(files: dict[str, Path], given: Arrays) -> None:
    run("w.npy", "out.npz", "--sha256", sha256(Path("w.npy")).upper())
    loaded = load_weights("out.npz", sha256(Path("out.npz")), SHAPES)
    assert loaded.keys() == SHAPES.keys()
    for name, array in loaded.items():
        np.testing.assert_array_equal(array, given[name])


@pytest.mark.parametrize(
    ("missing", "deepest"),
    [("fc8", "fc7"), ("fc8_b", "fc7"), ("fc", "pool5"), ("conv4_W", "conv3")],
)
def test_weights_of_some_layers_are_converted_as_far_as_they_reach(
    files: dict[str, Path], given: Arrays, missing: str, deepest: str
) -> None:
    np.savez("some.npz", **lacking(given, missing))
    said = json.loads(run("some.npz", "out.npz", "--json").output)
    assert (said["variant"], said["deepest"]) == ("narrow", deepest)
    shapes = weight_shapes("narrow", [deepest])
    assert said["shapes"] == {name: list(shape) for name, shape in shapes.items()}
    loaded = load_weights("out.npz", said["sha256"], shapes)
    assert weights_digest(loaded) == weights_digest({name: given[name] for name in shapes})
    # What is printed for params.yaml can be used as it is.
    assert f"  layers: [{deepest}] # the deepest" in run("some.npz", "out.npz").output


def lacking(given: Arrays, name: str) -> Any:
    return {k: v for k, v in given.items() if not k.startswith(name)}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["w.npy", "out.npz"], r"w\.npy: .*is a pickle .* --sha256"),
        (["w.pth", "out.npz", "--sha256", "00"], r"w\.pth: expected sha256 00, got "),
        (["w.pth", "out.npy"], r"out\.npy: expected a name that ends in \.npz"),
        (["seeded", "out.npz"], "seeded: no such file"),
        (["https://example.invalid/w.pth", "out.npz"], "unchecked; .*: --sha256"),
        (["https://example.invalid/w.h5", "out.npz", "--sha256", "00"], r"h5: expected weights in"),
        (["no_conv1_b.npz", "out.npz"], "no weights 'conv1_b', which .*; it has conv1_W"),
        (["no_conv1.pth", "out.npz"], r"expected conv1_W of shape .*\(bvlc\).*; got none"),
        (["wide.pth", "out.npz"], r"expected conv1_W of shape .*; got \(11, 11, 3, 13\)"),
        (["nan.caffemodel", "out.npz"], "fc7_b holds values that are not finite"),
    ],
)
def test_what_is_no_alexnet_leaves_no_file(
    files: dict[str, Path], given: Arrays, args: list[str], message: str
) -> None:
    np.savez("no_conv1_b.npz", **lacking(given, "conv1_b"))
    write_pth(Path("no_conv1.pth"), lacking(given, "conv1"))
    write_pth(Path("wide.pth"), given | {"conv1_W": np.ones((11, 11, 3, 13), np.float32)})
    nan = given | {"fc7_b": given["fc7_b"] * np.float32(np.nan)}
    write_caffemodel(Path("nan.caffemodel"), nan, legacy=False)
    before = sorted(Path().rglob("*"))
    with pytest.raises(InputError, match=message) as error:
        run(*args)
    assert "\n" not in str(error.value)
    assert sorted(Path().rglob("*")) == before


def test_the_make_of_a_store_does_not_depend_on_the_format(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    params = load_params(ROOT / "params.yaml")

    def made_by(weights: list[str], hashes: list[str]) -> dict[str, Any]:
        changes = {"variant": "narrow", "weights": weights, "sha256": hashes}
        base = Base.model_validate(params.base.model_dump() | changes)
        return load_base(params.model_copy(update={"base": base})).made_by()

    each = [made_by([str(path)], [sha256(path)]) for path in files.values()]
    assert capsys.readouterr() == ("", "")
    each.append(made_by(["absent.npz", "w.pth"], ["00", sha256(files[".pth"])]))
    assert each == each[:1] * 5
    # Beside the answer, which may be JSON.
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("weights: passed over absent.npz: absent.npz: no such file")
    assert said.err.endswith("\nweights: taken from w.pth\n")
