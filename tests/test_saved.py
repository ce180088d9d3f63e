"""Saved heads come back as they were; what is no saved head is told in one line."""

import io
import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heads import TEST, every_head, every_scaling, fitted, trained

from pipeline.errors import InputError
from pipeline.head import Head
from pipeline.saved import load_head, save_head
from pipeline.scaling import Kind

FACTS = {"features": "fc7", "fingerprint": "abc", "classes": [1, 12]}


def saved(folder: Path, name: str = "mlp") -> Path:
    save_head(trained(name), folder / name, FACTS)
    return folder / name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_comes_back(head: Head, folder: Path) -> None:
    save_head(head, folder, FACTS)
    loaded, facts = load_head(folder)
    assert facts == FACTS
    assert repr(loaded) == repr(head)
    assert loaded.temperature_ == head.temperature_
    np.testing.assert_array_equal(loaded.classes_, head.classes_)
    np.testing.assert_array_equal(loaded.predict_proba([TEST]), head.predict_proba([TEST]))


@every_head
def test_saved_and_loaded_is_the_same(tmp_path: Path, name: str) -> None:
    assert_comes_back(trained(name), tmp_path / "deep" / "folder")


@every_scaling
def test_scaling_comes_back(tmp_path: Path, scaling: Kind) -> None:
    assert_comes_back(fitted("ridge", scaling=scaling), tmp_path / "whole")
    assert_comes_back(fitted("ridge", scaling=scaling, components=5), tmp_path / "rotated")


@every_head
def test_saved_arrays_are_plain_and_in_single_precision_at_most(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path, name)
    assert set(contents(folder)) == {"head.json", "arrays.npz"}
    with np.load(folder / "arrays.npz", allow_pickle=False) as stored:
        kept = {key: str(stored[key].dtype) for key in stored.files}
    assert kept.pop("classes") == "int64"
    if name == "neighbours":
        assert kept.pop("labels") == "int64"
        assert kept.pop("vectors") == "float16"
    assert set(kept.values()) == {"float32"}


@every_head
def test_same_seed_same_bytes(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    save_head(trained(name), tmp_path / "one", FACTS)
    later = time.time() + 100_000
    monkeypatch.setattr(time, "time", lambda: later)
    save_head(fitted(name), tmp_path / "other", FACTS)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_saving_over_another_head_leaves_nothing_of_it(tmp_path: Path) -> None:
    for name in ("mlp", "softmax"):
        save_head(trained(name), tmp_path / "head", FACTS)
    save_head(trained("softmax"), tmp_path / "fresh", FACTS)
    assert contents(tmp_path / "head") == contents(tmp_path / "fresh")


def rewrite(folder: Path, change: Callable[[Any], Any]) -> None:
    path = folder / "head.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def set_settings(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda d: d | {"settings": d["settings"] | changes})


def set_kind(kind: Any) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda d: d | {"kind": kind})


def without(key: str) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda d: {k: v for k, v in d.items() if k != key})


def set_arrays(data: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "arrays.npz"
        path.write_bytes(data(path.read_bytes()))

    return change


def only_arrays(*kept: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with np.load(folder / "arrays.npz") as stored:
            arrays = {name: stored[name] for name in stored.files if name in kept}
        np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]

    return change


def npy(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as stored:
        return stored.read("W0.npy")


def flipped(data: bytes) -> bytes:
    """One bit of the first array."""
    place = data.index(npy(data)) + 200
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


BROKEN: dict[str, Callable[[Path], Any]] = {
    "no JSON": lambda folder: (folder / "head.json").write_text("{"),
    "no text": lambda folder: (folder / "head.json").write_bytes(b"\xff\xfe{}"),
    "a list": lambda folder: rewrite(folder, lambda d: [d]),
    "no settings": without("settings"),
    "no temperature": without("temperature"),
    "no facts": without("facts"),
    "unknown kind": set_kind("forest"),
    "kind that is no name": set_kind(["mlp"]),
    "other kind": set_kind("softmax"),
    "quite another kind": set_kind("logistic"),
    "unknown scaling": set_settings(scaling="cubic"),
    "setting out of range": set_settings(dropout=1.5),
    "unknown setting": set_settings(momentum=0.9),
    "arrays cut short": set_arrays(lambda data: data[:-200]),
    "arrays cut shorter": set_arrays(lambda data: data[:100]),
    "empty arrays": set_arrays(lambda _: b""),
    "text for arrays": set_arrays(lambda _: b"no arrays at all"),
    "one array bare": set_arrays(npy),
    "flipped bit": set_arrays(flipped),
    "no weights": only_arrays("classes", "scaling_mean_", "scaling_scale_"),
    "no bias": only_arrays("classes", "W0", "W1", "b1", "scaling_mean_", "scaling_scale_"),
    "no classes": only_arrays("W0", "b0", "W1", "b1", "scaling_mean_", "scaling_scale_"),
    "no scale": only_arrays("classes", "W0", "b0", "W1", "b1", "scaling_mean_"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_folder_is_told(tmp_path: Path, fault: str) -> None:
    folder = saved(tmp_path)
    BROKEN[fault](folder)
    with pytest.raises(
        InputError, match=rf"^{folder}: not a saved head: .*; run `dvc repro`$"
    ) as error:
        load_head(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("missing", ["head.json", "arrays.npz"])
def test_missing_file_is_told(tmp_path: Path, missing: str) -> None:
    folder = saved(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(
        InputError, match=rf"no trained head \({folder / missing} is missing\); run `dvc repro`$"
    ):
        load_head(folder)


def test_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent: no trained head .*; run `dvc repro`$"):
        load_head(tmp_path / "absent")


def test_loading_executes_nothing(tmp_path: Path) -> None:
    class Deed:
        def __reduce__(self) -> Any:
            return (Path.mkdir, (tmp_path / "victim",))

    folder = saved(tmp_path)
    with np.load(folder / "arrays.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(folder / "arrays.npz", **arrays | {"b1": np.array([Deed()])})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"not a saved head: .*allow_pickle"):
        load_head(folder)
    assert not (tmp_path / "victim").exists()
