"""``fc7cache convert-weights``: weights of any format read, checked, and written as ``.npz``."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pooch
import typer

from pipeline.alexnet import TAPS, VARIANTS, weight_shapes
from pipeline.errors import InputError
from pipeline.weights import Arrays, checked_weights, obtain_weights, read_weights
from stages.files import whole_file

# Published digests, sha256 or its beginning, sha1, and what they are of.
_PUBLISHED = {
    ("sha1", "9116a64c0fbe4459d18f4bb6b56d647b63920377"): "BVLC's bvlc_alexnet.caffemodel",
    ("sha256", "7be5be79"): "torchvision's alexnet-owt-7be5be79.pth",
}


def convert_weights(
    source: Annotated[
        str,
        typer.Argument(metavar="SRC", help="A .npy, .caffemodel, .pth or .npz; path or address."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.npz", dir_okay=False)],
    sha256: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="Of SRC; a .npy or a download must have one."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Read weights of any format, and write them as plain arrays for base.weights."""
    if out.suffix != ".npz":
        raise InputError(f"{out}: expected a name that ends in .npz")
    sha256 = sha256 and sha256.lower()
    path = obtain_weights(source, sha256)
    variant, deepest, arrays = weights_in(path, sha256)
    with whole_file(out) as part, part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    summary: dict[str, Any] = {
        "source": {"path": str(path), "sha256": _digest(path), "published_as": _published(path)},
        "variant": variant,
        "deepest": deepest,
        "weights": str(out),
        "sha256": _digest(out),
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
    }
    if as_json:
        print(json.dumps(summary, indent=1))
        return
    by = summary["source"]["published_as"]
    print(f"{path}: sha256 {summary['source']['sha256']}")
    print(f"  by its digest {by}" if by else "  no published file whose digest is known here")
    for name, array in arrays.items():
        print(f"  {name:<8} {' × '.join(map(str, array.shape))}")
    print(f"{out}: {out.stat().st_size / 1e6:,.1f} MB; for params.yaml:")
    print(f"base:\n  variant: {variant}\n  weights: {out}\n  sha256: {summary['sha256']}")
    if deepest != TAPS[-1]:
        print(f"  layers: [{deepest}] # the deepest that these weights reach, not {TAPS[-1]}")


def weights_in(path: Path, sha256: str | None) -> tuple[str, str, Arrays]:
    """Every weight of the network that a file holds, as far down as no layer's is missing.

    Args:
        path: The file.
        sha256: Its hash, already checked.

    Returns:
        Which network it is, the deepest layer that can be computed, and the weights.

    Raises:
        InputError: No AlexNet known here, or not even its first layer; values that are unfit.
    """
    # The names are those of every variant.
    arrays = read_weights(path, sha256, weight_shapes("bvlc", ["fc8"]))
    first = {variant: weight_shapes(variant, ["conv1"])["conv1_W"] for variant in VARIANTS}
    got = getattr(arrays.get("conv1_W"), "shape", None)
    for variant, shape in first.items():
        if shape == got:
            needed = {tap: weight_shapes(variant, [tap]) for tap in TAPS}
            whole = [tap for tap in TAPS if needed[tap].keys() <= arrays.keys()]
            deepest = whole[-1] if whole else TAPS[0]  # which is then told to be incomplete
            return variant, deepest, checked_weights(path, arrays, needed[deepest])
    expected = ", ".join(f"{shape} ({variant})" for variant, shape in first.items())
    raise InputError(
        f"{path}: expected conv1_W of shape {expected}; got {'none' if got is None else got}"
    )


def _published(path: Path) -> str | None:
    for (algorithm, digest), name in _PUBLISHED.items():
        if _digest(path, algorithm).startswith(digest):
            return name
    return None


def _digest(path: Path, algorithm: str = "sha256") -> str:
    return str(pooch.file_hash(str(path), alg=algorithm))
