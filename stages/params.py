"""params.yaml, read and checked. The only module that reads it for a stage."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import InputError

PARAMS = Path("params.yaml")
LOCKED = Path("dvc.lock")
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")  # pydantic's names for it
Hex = Annotated[str, StringConstraints(pattern="^[0-9a-fA-F]+$", to_lower=True)]


def _listed(value: Any) -> Any:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


_Listed = BeforeValidator(_listed)  # one value stands for a list of it, null for an empty one


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Md5(_Section):
    """Checksums of the three archives."""

    train: Hex
    test: Hex
    test_labels: Hex


class Prepare(_Section):
    """Where the images come from."""

    source: Annotated[str, Field(min_length=1)]
    test_fraction: Annotated[float, Field(gt=0, lt=1)]
    md5: Md5


class Contrast(_Section):
    """See `pipeline.images.Contrast`."""

    clip: Annotated[float, Field(gt=0, le=256)]  # no grey level has more even shares than there are
    tiles: Annotated[int, Field(gt=0, le=32)]


class Base(_Section):
    """The frozen network and what is read from it."""

    variant: Literal["bvlc", "torchvision", "narrow"]
    weights: Annotated[list[str], Field(min_length=1), _Listed]
    sha256: Annotated[list[Hex], _Listed]
    layers: Annotated[list[str], Field(min_length=1)]
    crop: Literal["full", "roi"]
    contrast: Contrast | None
    shift: Annotated[float, Field(ge=0, lt=0.5)]
    precision: Literal["float32", "bfloat16"]

    @property
    def seeded(self) -> bool:
        """Whether random stand-ins take the place of weights."""
        return self.weights == ["seeded"]

    @property
    def sources(self) -> list[tuple[str, str | None]]:
        """Where the weights come from, in the order to try: location and sha256."""
        if not self.sha256:
            return [(location, None) for location in self.weights]
        hashes = self.sha256 if len(self.sha256) > 1 else self.sha256 * len(self.weights)
        return list(zip(self.weights, hashes, strict=True))


class Store(_Section):
    """How the features lie on disk."""

    address: str | None
    dtype: Literal["float32", "float16"]
    shard_rows: Annotated[int, Field(gt=0)]
    chunk_rows: Annotated[int, Field(gt=0)]


class Split(_Section):
    """Validation tracks."""

    method: Literal["hold_out", "k_fold"]
    val_fraction: Annotated[float, Field(gt=0, lt=1)]
    folds: Annotated[int, Field(ge=2)]
    seed: int


class Study(_Section):
    """What is asked of some heads beyond the comparison."""

    heads: Annotated[list[str], Field(min_length=1)]
    fractions: list[Annotated[float, Field(gt=0, lt=1)]]


class Compare(_Section):
    """How results are stated."""

    confidence: Annotated[float, Field(gt=0, lt=1)]


class Params(_Section):
    """The whole file. A head's block is checked by the head's own class."""

    prepare: Prepare
    base: Base
    store: Store
    split: Split
    heads: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    study: Study
    compare: Compare


def load_params(path: Path = PARAMS) -> Params:
    """Read and check the settings.

    Raises:
        InputError: Absent, not YAML, an unknown or missing key, a value out of range.
    """
    try:
        document = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError as error:
        raise InputError(f"no {path} in {Path.cwd()}; run from the root of the project") from error
    except YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    params: Params = checked(Params, document)
    if absent := sorted(set(params.study.heads) - set(params.heads)):
        raise InputError(
            f"{path}: study.heads: no head {absent[0]!r}; it has {', '.join(params.heads)}"
        )
    _check_sources(params.base, path)
    return params


def prepared_with(path: Path = LOCKED) -> Prepare | None:
    """The settings that ``prepare`` last ran with, as DVC noted them.

    Returns:
        None where it has not run, or ran when there were other settings than now.

    Raises:
        InputError: DVC's notes cannot be read.
    """
    try:
        noted = YAML(typ="safe", pure=True).load(path)["stages"]["prepare"]["params"]
        settings: Prepare = checked(Prepare, noted[str(PARAMS)]["prepare"])
    except (FileNotFoundError, KeyError, InputError):
        return None
    except (YAMLError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not what DVC writes: {reason}; restore it from git") from error
    return settings


def stated(params: Params) -> dict[str, Any]:
    """What params.yaml alone says of the features, to hold a store against."""
    base = params.base
    return {
        "variant": base.variant,
        "layers": list(base.layers),
        "crop": base.crop,
        "contrast": base.contrast.model_dump() if base.contrast else None,
        "shift": base.shift,
        "precision": base.precision,
        "weights": "seeded" if base.seeded else "file",
        "dtype": params.store.dtype,
    }


def checked(kind: type[Any], values: Any, where: str = "") -> Any:
    """Make a settings object of plain values.

    Args:
        kind: A pydantic model or dataclass.
        values: What YAML gave.
        where: The section's place in the file, "heads.mlp", for messages.

    Raises:
        InputError: Naming the first fault's place, and for an unknown key the nearest valid one.
    """
    try:
        # By way of JSON, where strict does not mean that an object must be made already.
        return TypeAdapter(kind).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        # An unknown key first: where one is misspelt, another is missing.
        faults = sorted(error.errors(include_url=False), key=lambda f: f["type"] not in _UNKNOWN)
        raise InputError(f"{PARAMS}: {_sentence(faults[0], kind, where)}") from error


def _check_sources(base: Base, path: Path) -> None:
    several, hashes = len(base.weights), len(base.sha256)
    if several > 1 and "seeded" in base.weights:
        raise InputError(
            f"{path}: base.weights: `seeded` stands alone; in a list, random stand-ins would take "
            "the place of weights that cannot be had"
        )
    if hashes not in ({0, 1} if several == 1 else {1, several}):
        raise InputError(
            f"{path}: base.sha256: expected one hash for all of base.weights, or one for each of "
            f"the {several}, got {hashes}"
        )


def _sentence(fault: Mapping[str, Any], kind: type[Any], where: str) -> str:
    path = [str(step) for step in fault["loc"] if step != kind.__name__]
    place = ".".join([*([where] if where else []), *path])
    if fault["type"] in _UNKNOWN:
        valid = _keys(kind, path[:-1])
        near = difflib.get_close_matches(path[-1], valid, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(valid)}"
        return f"{place}: unknown key; {hint}"
    if fault["type"] in ("missing", "missing_argument"):
        return f"{place}: missing; every setting must be there"
    if fault["type"] == "value_error":  # of settings that do not go together
        return f"{place}: {fault['ctx']['error']}"
    return f"{place}: {fault['msg'][0].lower()}{fault['msg'][1:]}, got {fault['input']!r}"


def _keys(kind: Any, path: list[str]) -> list[str]:
    for step in path:
        kind = kind.model_fields[step].annotation
        # Of `Section | None`, the section.
        kind = next((part for part in get_args(kind) if hasattr(part, "model_fields")), kind)
    if hasattr(kind, "model_fields"):
        return list(kind.model_fields)
    return [entry.name for entry in fields(kind) if entry.init]
