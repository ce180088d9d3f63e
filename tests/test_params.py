"""params.yaml: what is wrong in it is said in one line."""

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from pipeline.errors import InputError
from pipeline.heads import KINDS
from stages.params import load_params
from stages.train import make_head


def changed(tmp_path: Path, where: str, value: Any) -> Path:
    """The project's params.yaml with one setting changed; a value of ... removes it."""
    params = node = YAML(typ="safe").load(ROOT / "params.yaml")
    *steps, last = where.split(".")
    for step in steps:
        node = node[step]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    YAML(typ="safe").dump(params, tmp_path / "params.yaml")
    return tmp_path / "params.yaml"


def test_the_shipped_file_is_valid_and_every_head_in_it() -> None:
    params = load_params(ROOT / "params.yaml")
    heads = [make_head(params, name)[0] for name in params.heads]
    assert {head.kind for head in heads} == set(KINDS)
    assert params.base.variant == "bvlc"
    assert params.base.layers == ["fc7"]


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("base.wieghts", "seeded", r"base\.wieghts: unknown key; did you mean 'weights'\?"),
        ("bsae", {}, r"bsae: unknown key; did you mean 'base'\?"),
        ("prepare.md5.tset", "00", r"prepare\.md5\.tset: unknown key; did you mean 'test'\?"),
        ("store.zzzzzz", 1, r"store\.zzzzzz: unknown key; expected one of dtype, shard_rows"),
        ("split.seed", ..., r"split\.seed: missing"),
        ("base.variant", "vgg", r"base\.variant: input should be 'bvlc', 'torchvision' or .*'vgg'"),
        ("base.layers", [], r"base\.layers: list should have at least 1 item"),
        ("split.val_fraction", 1.5, r"split\.val_fraction: .*less than 1, got 1\.5"),
        ("store.shard_rows", "many", r"store\.shard_rows: .*valid integer, got 'many'"),
    ],
)
def test_a_bad_setting_gets_one_line(tmp_path: Path, where: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_params(changed(tmp_path, where, value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("heads.mlp.hiden", 5, r"heads\.mlp\.hiden: unknown key; did you mean 'hidden'\?"),
        ("heads.mlp.hidden", ..., r"heads\.mlp\.hidden: missing"),
        ("heads.mlp.dropout", 1.0, r"heads\.mlp\.dropout: .*less than 1"),
        ("heads.mlp.kind", "mpl", r"heads\.mlp\.kind: expected one of .*logistic, got 'mpl'"),
        ("heads.logistic.C", [0], r"heads\.logistic\.C\.0: .*greater than 0"),
    ],
)
def test_a_bad_head_gets_one_line(tmp_path: Path, where: str, value: Any, message: str) -> None:
    params = load_params(changed(tmp_path, where, value))
    with pytest.raises(InputError, match=message):
        make_head(params, where.split(".")[1])


def test_an_absent_head_names_those_there() -> None:
    with pytest.raises(InputError, match="no head 'svm'; it has softmax, mlp, logistic"):
        make_head(load_params(ROOT / "params.yaml"), "svm")


def test_no_file_and_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run from the root of the project"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("base: [1")
    with pytest.raises(InputError, match="not YAML"):
        load_params(tmp_path / "params.yaml")


def test_numbers_in_exponent_form_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    path.write_text(re.sub(r"val_fraction: [\d.]+", "val_fraction: 2e-1", text))
    assert load_params(path).split.val_fraction == 0.2
