"""params.yaml: what is wrong in it is said in one line."""

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from pipeline.errors import InputError
from pipeline.heads import KINDS
from stages.candidates import candidates_of
from stages.params import load_params, stated


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
    kinds = {candidates_of(params, name).heads[0].kind for name in params.heads}
    assert kinds == set(KINDS) - {"fine_tuned"}  # which needs pool5 in the cache
    assert set(params.study.heads) <= set(params.heads)
    assert params.base.variant == "bvlc"
    assert params.base.layers == ["fc7"]


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("base.wieghts", "seeded", r"base\.wieghts: unknown key; did you mean 'weights'\?"),
        ("bsae", {}, r"bsae: unknown key; did you mean 'base'\?"),
        ("prepare.md5.tset", "00", r"prepare\.md5\.tset: unknown key; did you mean 'test'\?"),
        (
            "base.contrast",
            {"clip": 4, "tile": 4},
            r"base\.contrast\.tile: unknown key; did you mean 'tiles'\?",
        ),
        (
            "base.contrast",
            {"clip": 1e9, "tiles": 4},
            r"base\.contrast\.clip: .* less than or equal",
        ),
        (
            "base.contrast",
            {"clip": 4, "tiles": 99},
            r"base\.contrast\.tiles: .* less than or equal",
        ),
        ("base.shift", 0.5, r"base\.shift: .* less than 0\.5"),
        ("store.zzzzzz", 1, r"store\.zzzzzz: unknown key; expected one of address, dtype"),
        ("base.weights", 3, r"base\.weights\.0: input should be a valid string, got 3"),
        ("base.weights", [], r"base\.weights: .*at least 1 item"),
        ("base.weights", None, r"base\.weights: .*at least 1 item"),
        ("base.weights", ["a.npz", "seeded"], r"base\.weights: `seeded` stands alone; .*stand-ins"),
        ("base.sha256", "xyz", r"base\.sha256\.0: string should match .*got 'xyz'"),
        ("base.sha256", ["00", "11"], r"base\.sha256: expected one hash .* each of the 1, got 2"),
        ("prepare.source", "", r"prepare\.source: .*at least 1 character"),
        ("split.seed", ..., r"split\.seed: missing"),
        ("base.variant", "vgg", r"base\.variant: input should be 'bvlc', 'torchvision' or .*'vgg'"),
        ("base.layers", [], r"base\.layers: list should have at least 1 item"),
        ("split.val_fraction", 1.5, r"split\.val_fraction: .*less than 1, got 1\.5"),
        ("split.method", "random", r"split\.method: input should be 'hold_out' or 'k_fold'"),
        ("split.folds", 1, r"split\.folds: .*greater than or equal to 2, got 1"),
        ("study.heads", ["mlp", "svm"], r"study\.heads: no head 'svm'; it has logistic, mlp"),
        ("study.fractions", [0.5, 1], r"study\.fractions\.1: .*less than 1"),
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
        ("heads.mlp.kind", "mpl", r"heads\.mlp\.kind: expected one of .*logistic.*, got 'mpl'"),
        ("heads.mlp.kind", ["mlp", "ridge"], r"heads\.mlp\.kind: expected one of"),
        ("heads.mlp.features", ["fc7", "fc7"], r"heads\.mlp\.features: expected null"),
        ("heads.logistic.C", [0], r"heads\.logistic\.C: .*greater than 0"),
        ("heads.logistic.C", [], r"heads\.logistic\.C: expected at least one value, got \[\]"),
        ("heads.mlp.hidden", [64, "x"], r"heads\.mlp\.hidden: .*valid integer, got 'x'"),
        ("heads.mlp.seed", 1, r"heads\.mlp\.seed: unknown key; expected `seeds`"),
        ("heads.mlp.seeds", 1, r"heads\.mlp\.seeds: expected a list of different whole numbers"),
        ("heads.mlp.seeds", [1, 1], r"heads\.mlp\.seeds: .*got \[1, 1\]"),
        ("heads.ridge.seeds", [1], r"heads\.ridge\.seeds: unknown key"),
        ("heads.mlp.features", ..., r"heads\.mlp\.features: missing"),
        ("heads.mlp.features", "pool5", r"heads\.mlp\.features: .*\(fc7\), got 'pool5'; add the"),
        ("heads.mlp.features", [], r"heads\.mlp\.features: expected null"),
        ("heads.mlp.features", {"a": 1}, r"heads\.mlp\.features: expected null"),
    ],
)
def test_a_bad_head_gets_one_line(tmp_path: Path, where: str, value: Any, message: str) -> None:
    params = load_params(changed(tmp_path, where, value))
    with pytest.raises(InputError, match=message):
        candidates_of(params, where.split(".")[1])


def test_an_absent_head_names_those_there() -> None:
    with pytest.raises(InputError, match="no head 'svm'; it has softmax, mlp, logistic, ridge"):
        candidates_of(load_params(ROOT / "params.yaml"), "svm")


def test_lists_of_values_are_combined_in_the_order_of_the_block() -> None:
    params = load_params(ROOT / "params.yaml")
    params.heads["mlp"]["hidden"] = [8, 16, 32]
    found = candidates_of(params, "mlp")
    assert found.searched == ["scaling", "hidden", "dropout", "learning_rate"]
    assert len(found.heads) == 2 * 3 * 2 * 2
    assert [head.hidden for head in found.heads[:12:4]] == [8, 16, 32]  # type: ignore[attr-defined]
    assert found.seeds == [0, 1, 2]
    assert {head.seed for head in found.heads} == {0}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "layers"), [(None, ["fc7"]), ("pool5", ["pool5"]), (["fc7", "pool5"],) * 2]
)
def test_a_head_reads_one_layer_or_several(tmp_path: Path, given: Any, layers: list[str]) -> None:
    path = changed(tmp_path, "base.layers", ["pool5", "fc7"])
    params = load_params(path)
    params.heads["ridge"]["features"] = given
    assert candidates_of(params, "ridge").layers == layers


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


A, B, C = "00", "11", "22"


@pytest.mark.parametrize(
    ("weights", "sha256", "sources"),
    [
        ("a.npz", A, [("a.npz", A)]),
        ("a.npz", None, [("a.npz", None)]),
        (["a.npz"], [A], [("a.npz", A)]),
        ("a.npz", "0AfB", [("a.npz", "0afb")]),
        (["a.npz", "b.npz"], A, [("a.npz", A), ("b.npz", A)]),
        (["a.npz", "b.npy", "c.pth"], [A, B, C], [("a.npz", A), ("b.npy", B), ("c.pth", C)]),
    ],
)
def test_weights_at_one_address_or_several(
    tmp_path: Path, weights: Any, sha256: Any, sources: list[Any]
) -> None:
    changed(tmp_path, "base.weights", weights)
    params = YAML(typ="safe").load(tmp_path / "params.yaml")
    params["base"]["sha256"] = sha256
    YAML(typ="safe").dump(params, tmp_path / "params.yaml")
    base = load_params(tmp_path / "params.yaml").base
    assert base.sources == sources
    assert not base.seeded


@pytest.mark.parametrize(("sha256", "got"), [(None, 0), ([A, B], 2)])
def test_several_addresses_need_a_hash_each(tmp_path: Path, sha256: Any, got: int) -> None:
    changed(tmp_path, "base.weights", ["a.npz", "b.npz", "c.npz"])
    params = YAML(typ="safe").load(tmp_path / "params.yaml")
    params["base"]["sha256"] = sha256
    YAML(typ="safe").dump(params, tmp_path / "params.yaml")
    with pytest.raises(InputError, match=f"one hash for all .* each of the 3, got {got}$"):
        load_params(tmp_path / "params.yaml")


def test_what_is_stated_of_the_features_does_not_depend_on_where_weights_lie(
    tmp_path: Path,
) -> None:
    said = []
    for weights in ("seeded", "a.npy", "b.caffemodel", ["a.npy", "https://example.org/c.pth"]):
        said.append(stated(load_params(changed(tmp_path, "base.weights", weights))))
    assert [one.pop("weights") for one in said] == ["seeded", "file", "file", "file"]
    assert said == said[:1] * 4
