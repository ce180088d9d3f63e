"""A head's block in params.yaml to the heads that it asks for."""

import itertools
from dataclasses import dataclass, fields
from typing import Any

from pipeline.errors import InputError
from pipeline.head import Head
from pipeline.heads import KINDS
from stages.params import Params, checked


@dataclass(frozen=True)
class Candidates:
    """One block.

    Attributes:
        heads: Every combination of the values that settings list, in the block's order.
        searched: Settings that list more than one value.
        layers: The cached layers that the heads read.
        seeds: Of the refits; the first is also that of the sweep. Empty where nothing is random.
    """

    heads: list[Head]
    searched: list[str]
    layers: list[str]
    seeds: list[int]


def candidates_of(params: Params, name: str) -> Candidates:
    """Untrained heads of one block.

    Raises:
        InputError: No such block, an unknown kind, an unknown or missing setting, a layer that
            is not cached.
    """
    if name not in params.heads:
        raise InputError(f"params.yaml: no head {name!r}; it has {', '.join(params.heads)}")
    where, block = f"heads.{name}", dict(params.heads[name])
    kind = block.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(
            f"params.yaml: {where}.kind: expected one of {', '.join(KINDS)}, got {kind!r}"
        )
    layers = _layers(params, where, block)
    seeds: list[int] = []
    if any(entry.name == "seed" for entry in fields(KINDS[kind])):
        if "seed" in block:
            raise InputError(
                f"params.yaml: {where}.seed: unknown key; expected `seeds`, a list of them"
            )
        seeds = _seeds(where, block)
        block["seed"] = seeds[0]
    values = {key: value if isinstance(value, list) else [value] for key, value in block.items()}
    for key, listed in values.items():
        if not listed:
            raise InputError(f"params.yaml: {where}.{key}: expected at least one value, got []")
    heads = [
        checked(KINDS[kind], dict(zip(values, combination, strict=True)), where)
        for combination in itertools.product(*values.values())
    ]
    return Candidates(heads, [k for k, v in values.items() if len(v) > 1], layers, seeds)


def _layers(params: Params, where: str, block: dict[str, Any]) -> list[str]:
    if "features" not in block:
        raise InputError(f"params.yaml: {where}.features: missing; every setting must be there")
    given = block.pop("features")
    cached = params.base.layers
    layers = [cached[-1]] if given is None else [given] if isinstance(given, str) else given
    if (
        not isinstance(layers, list)
        or not layers
        or not set(map(str, layers)) <= set(cached)
        or len(set(layers)) < len(layers)
    ):
        raise InputError(
            f"params.yaml: {where}.features: expected null, or one or several of base.layers "
            f"({', '.join(cached)}), got {given!r}; add the layer to base.layers to cache it too"
        )
    return layers


def _seeds(where: str, block: dict[str, Any]) -> list[int]:
    seeds = block.pop("seeds", None)
    if (
        not isinstance(seeds, list)
        or not seeds
        or not all(isinstance(seed, int) and seed >= 0 for seed in seeds)
        or len(set(seeds)) < len(seeds)
    ):
        raise InputError(
            f"params.yaml: {where}.seeds: expected a list of different whole numbers, as "
            f"[0, 1, 2], got {seeds!r}"
        )
    return seeds
