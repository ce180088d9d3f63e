"""A person's own images, as they list them, made into the index. Groups are never divided."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.classes import Classes
from pipeline.contents import Progress, check_region, indexed, looked_at
from pipeline.errors import InputError
from pipeline.folder import Folder
from pipeline.listing import REGION, Listed, list_csv, list_folder

_WHAT_IS_A_GROUP = "an image without a group is its own; groups that share an image are one"


def index_own(
    source: Path, folder: Folder, test_fraction: float, progress: Progress = iter
) -> tuple[pd.DataFrame, Classes]:
    """One row per listed image, each read and decoded once.

    Args:
        source: The folder of classes, or a CSV.
        folder: What to read images from, by their listed paths.
        test_fraction: Share of groups, in (0, 1), that is tested on where no split is given.
        progress: Wraps the loop over images, e.g. a tqdm bar.

    Returns:
        The columns of `pipeline.index`, and the classes, sorted by name with numbers by their
        value.

    Raises:
        InputError: A mistake in the listing (see `pipeline.listing`), too few classes or groups, a
            group on both sides, an image absent or damaged.
    """
    listed = list_csv(source) if source.is_file() else list_folder(source)
    table, classes = numbered(listed, str(source), test_fraction)
    sources = {"train": folder, "test": folder}
    seen = {}
    for row, (size, digest) in looked_at(table, sources, progress):
        region = row.region or (0, 0, size[0] - 1, size[1] - 1)
        check_region(region, size, f"{folder.path}: {row.member}")
        seen[row.member] = size, region, digest
    whole = copies_together(listed, {member: found[2] for member, found in seen.items()})
    table, classes = numbered(whole, str(source), test_fraction)
    sizes, regions, digests = zip(*(seen[member] for member in table["member"]), strict=True)
    table[["width", "height"]] = np.array(sizes)
    table[list(REGION)] = np.array(regions)
    return indexed(table, list(digests)), classes


def copies_together(listed: Sequence[Listed], digest: Mapping[str, str]) -> list[Listed]:
    """With one group for images of the same bytes, label and split, whatever groups they named.

    So that no draw tests, or validates, on what was trained on. Groups that share an image become
    one, of the name that comes first.

    Args:
        listed: Images, in any order, which makes no difference; each group on one side.
        digest: Of their bytes, by ``member``.
    """
    group = [_key(image) for image in listed]
    copies = [(digest[image.member], image.label, image.split) for image in listed]
    # Named groups first, so that a copy that joins one moves none of its images.
    names = sorted(set(group), key=lambda name: (name[0] == "\0", natural(name)))
    place: dict[object, int] = {node: k for k, node in enumerate([*names, *set(copies)])}
    ends = [place[name] for name in group], [place[copy] for copy in copies]
    ties = coo_array((np.ones(len(listed)), ends), shape=(len(place), len(place)))
    _, part = connected_components(ties, directed=False)
    first = {part[place[name]]: name for name in reversed(names)}
    return [
        image._replace(group=first[part[place[name]]])
        for image, name in zip(listed, group, strict=True)
    ]


def numbered(
    listed: Sequence[Listed], where: str, test_fraction: float
) -> tuple[pd.DataFrame, Classes]:
    """Give images their split, label, track (their group's number), frame (place in it), and id.

    Args:
        listed: In any order, which makes no difference.
        where: What to call them in an error.
        test_fraction: See `index_own`.

    Returns:
        Training images by class, group and name, then test images; columns as in
        `pipeline.index`, and ``region``. And the classes.

    Raises:
        InputError: See `index_own`.
    """
    names = sorted({image.label for image in listed}, key=natural)
    if len(names) < 2:
        raise InputError(
            f"{where}: expected images of at least two classes, got "
            f"{'none' if not names else f'{len(listed)} of {names[0]!r} alone'}"
        )
    group = [_key(image) for image in listed]
    split = [image.split for image in listed]
    if not any(split):
        held_out = draw_test(group, [image.label for image in listed], test_fraction)
        split = ["test" if key in held_out else "train" for key in group]
    _check_groups(where, listed, group, split)
    label = {name: k for k, name in enumerate(names)}
    # Of train/CLASS/image the first part is said by the split.
    apart = all(image.split and image.member.startswith(f"{image.split}/") for image in listed)
    place = {key: natural(key) for key in set(group)}
    order = sorted(
        range(len(listed)),
        key=lambda k: (
            split[k] == "test",
            label[listed[k].label],
            place[group[k]],
            _place(listed[k]),
        ),
    )
    table = pd.DataFrame(
        {
            "image_id": [
                listed[k].member if apart else f"{split[k]}/{listed[k].member}" for k in order
            ],
            "split": [split[k] for k in order],
            "label": [label[listed[k].label] for k in order],
            "track": pd.factorize(np.array([group[k] for k in order], object))[0],
            "member": [listed[k].member for k in order],
            "region": [listed[k].region for k in order],
        }
    )
    table["frame"] = table.groupby("track").cumcount()
    return table, Classes("own", tuple(names), {})


def draw_test(group: Sequence[str], label: Sequence[str], fraction: float) -> set[str]:
    """Groups to test on: a share of each class's, at least one, but two are left to train on.

    Where a group has images of several classes, a share of all groups instead, at least two: one
    has no interval. Which ones is settled by a digest of their names: neither order nor what else
    is there changes a group's place in the draw, so that images added later move few from one side
    to the other.

    Args:
        group: (N,) of the images.
        label: (N,) of the images.
        fraction: In (0, 1).
    """
    pairs = set(zip(label, group, strict=True))
    whole = len(pairs) == len({key for _, key in pairs})
    least = 1 if whole else 2
    of_class = defaultdict(list)
    for name, key in pairs:
        of_class[name if whole else ""].append(key)
    held_out: set[str] = set()
    for keys in of_class.values():
        unique = sorted(set(keys), key=lambda key: hashlib.sha256(key.encode()).digest())
        wanted = max(least, round(fraction * len(unique)))
        held_out.update(unique[: max(0, min(wanted, len(unique) - 2))])
    return held_out


def natural(text: str) -> tuple[object, ...]:
    """A key to sort by, under which 9 comes before 10."""
    parts = re.split("([0-9]+)", text)
    # Of numbers without leading zeros the longer is the larger.
    key = [(len(n := part.lstrip("0")), n) if k % 2 else part for k, part in enumerate(parts)]
    return key, text


def _place(image: Listed) -> tuple[object, ...]:
    return natural(image.member)


def _key(image: Listed) -> str:
    # No name has a null in it, so an image on its own cannot be taken for a group.
    return image.group or f"\0{image.member}"


def _check_groups(
    where: str, listed: Sequence[Listed], group: Sequence[str], split: Sequence[str]
) -> None:
    sides = dict(zip(group, split, strict=True))
    of_class: dict[str, dict[str, set[str]]] = defaultdict(lambda: {"train": set(), "test": set()})
    for image, key, side in zip(listed, group, split, strict=True):
        if sides[key] != side:
            raise InputError(
                f"{where}: group {key!r} has images in train and in test; expected each group on "
                "one side, or its images would test what was learnt from themselves"
            )
        of_class[image.label][side].add(key)
    drawn = not listed[0].split
    for name in sorted(of_class, key=natural):
        train, test = map(len, of_class[name].values())
        if drawn and train + test < 3:
            raise InputError(
                f"{where}: class {name!r} has {train + test} groups of images; expected at least "
                f"three, to train, validate and test on ({_WHAT_IS_A_GROUP})"
            )
        if train < 2 or (drawn and not test):
            raise InputError(
                f"{where}: class {name!r} has {train} groups to train on and {test} to test on; "
                "expected two to train on, as one is held out for validation"
                + (", and one to test on; choose another prepare.test_fraction" if drawn else "")
                + f" ({_WHAT_IS_A_GROUP})"
            )
    if (tested := sum(side == "test" for side in sides.values())) < 2:
        raise InputError(
            f"{where}: {tested} groups to test on; expected at least two, for an interval; "
            + ("add groups of images" if drawn else "give another group the split test")
        )
