"""Own images made into the index: groups on one side each, whatever they are like."""

import hashlib
import itertools
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.ahead import loaded_ahead
from pipeline.audit import audit
from pipeline.classes import Classes
from pipeline.errors import InputError
from pipeline.eye import Eye
from pipeline.folder import Folder
from pipeline.images import decode, resized
from pipeline.index import COLUMNS, read_index
from pipeline.listing import Listed
from pipeline.own import copies_together, draw_test, index_own, natural, numbered
from pipeline.reading import Reader, workers
from pipeline.splits import split_by_track


def listing(rows: Iterable[tuple[str, str, str]]) -> list[Listed]:
    """Images of label, group and split, with names of their own."""
    return [
        Listed(f"{k:03}.png", label, group, split, None)
        for k, (label, group, split) in enumerate(rows)
    ]


@st.composite
def grouped(draw: st.DrawFn) -> list[Listed]:
    """Two to four classes of at least three groups each, of which some are single images."""
    rows = []
    for label in "abcd"[: draw(st.integers(2, 4))]:
        for group in range(draw(st.integers(3, 12))):
            single = draw(st.booleans())
            rows += [(label, "" if single else f"{label}{group}", "")] * draw(st.integers(1, 3))
    return listing(draw(st.permutations(rows)))


def groups_of(listed: Sequence[Listed], table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The table's rows by the group that the listing names, or by the image on its own."""
    name = {image.member: image.group or image.member for image in listed}
    return dict(iter(table.groupby(table["member"].map(name))))


@settings(deadline=None)
@given(grouped(), st.floats(0.01, 0.99))
def test_a_group_is_on_one_side_and_a_share_of_each_classes_groups_is_tested_on(
    listed: list[Listed], fraction: float
) -> None:
    table, classes = numbered(listed, "x", fraction)
    assert sorted(table["member"]) == sorted(image.member for image in listed)
    sides: dict[str, list[str]] = defaultdict(list)
    for rows in groups_of(listed, table).values():
        assert rows["split"].nunique() == rows["label"].nunique() == rows["track"].nunique() == 1
        assert rows["frame"].tolist() == list(range(len(rows)))
        sides[classes.names[rows["label"].iloc[0]]].append(rows["split"].iloc[0])
    assert table["track"].nunique() == sum(map(len, sides.values()))
    for found in sides.values():
        wanted = min(max(round(fraction * len(found)), 1), len(found) - 2)
        assert found.count("test") == wanted


@settings(deadline=None)
@given(grouped(), st.floats(0.01, 0.99), st.randoms(use_true_random=False))
def test_order_makes_no_difference(
    listed: list[Listed], fraction: float, chance: random.Random
) -> None:
    shuffled = chance.sample(listed, len(listed))
    pd.testing.assert_frame_equal(
        numbered(shuffled, "x", fraction)[0], numbered(listed, "x", fraction)[0]
    )


@given(
    st.sets(st.text("abc", min_size=1), min_size=3),
    st.text("abc", min_size=1),
    st.floats(0.01, 0.99),
)
def test_one_more_group_moves_at_most_one_other(old: set[str], new: str, fraction: float) -> None:
    before = draw_test([*old], ["x"] * len(old), fraction)
    after = draw_test([*old | {new}], ["x"] * len(old | {new}), fraction)
    assert len((before ^ after) - {new}) <= 1


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("pqrstuvw"), st.just("")), min_size=20
    ),
    st.floats(0.1, 0.6),
)
def test_a_group_of_several_classes_is_on_one_side_too(
    rows: list[tuple[str, str, str]], fraction: float
) -> None:
    listed = listing(rows)
    try:
        table, _ = numbered(listed, "x", fraction)
    except InputError:
        return  # a class left without
    for found in groups_of(listed, table).values():
        assert found["split"].nunique() == found["track"].nunique() == 1
    for part in ("train", "test"):
        assert table["label"][table["split"] == part].nunique() == 2


def test_ids_and_numbers_follow_names_as_a_person_sorts_them() -> None:
    members = ("c10/g2/1.png", "c10/g10/1.png", "c10/g2/10.png", "c10/g2/9.png", "c9/a.png")
    listed = [
        Listed(
            f"{split}/{m}",
            m.split("/")[0],
            "" if "a" in m else f"{split}/{m.rsplit('/', 1)[0]}",
            split,
            None,
        )
        for m in members
        for split in ("train", "test")
    ] + [Listed("train/c9/b.png", "c9", "", "train", None)]
    table, classes = numbered(listed, "x", 0.2)
    assert classes == Classes("own", ("c9", "c10"), {})
    train = table[table["split"] == "train"]
    assert train["image_id"].tolist() == [
        "train/c9/a.png", "train/c9/b.png", "train/c10/g2/1.png", "train/c10/g2/9.png",
        "train/c10/g2/10.png", "train/c10/g10/1.png",
    ]  # fmt: skip
    assert train["label"].tolist() == [0, 0, 1, 1, 1, 1]
    assert train["track"].tolist() == [0, 1, 2, 2, 2, 3]
    assert train["frame"].tolist() == [0, 0, 0, 1, 2, 0]
    assert table["track"].nunique() == 4 + 3
    unlike = sorted(["10", "9", "09", "1b2", "1a10", "1a9", "", "x"], key=natural)
    assert unlike == ["", "1a9", "1a10", "1b2", "09", "9", "10", "x"]


def test_ids_stay_unique_where_a_csv_calls_a_folder_train() -> None:
    listed = listing([("a", "", "train"), ("b", "", "train")] * 2 + [("a", "", "test")] * 2)
    listed.append(Listed("train/000.png", "a", "", "train", None))
    assert numbered(listed, "x", 0.2)[0]["image_id"].is_unique


FAULTS = {
    "nothing": ([], "x: expected images of at least two classes, got none"),
    "one class": ([("a", "", "")] * 9, "of at least two classes, got 9 of 'a' alone"),
    "group on both sides": (
        [("a", "g", "train"), ("a", "g", "test"), ("b", "", "train")],
        "group 'g' has images in train and in test; expected each group on one side",
    ),
    "no training images": (
        [("a", "", "train")] * 3 + [("b", "", "test")] * 3,
        "class 'b' has 0 groups to train on and 3 to test on; expected two to train on",
    ),
    "one group": (
        [("a", "", "train")] * 3 + [("b", "g", "train")] * 3 + [("a", "", "test")] * 2,
        "class 'b' has 1 groups to train on and 0 to test on; expected two to train on",
    ),
    "two groups to draw from": (
        [("a", "", "")] * 3 + [("b", "g", ""), ("b", "h", "")],
        "class 'b' has 2 groups of images; expected at least three, to train, validate and test",
    ),
    "one to test on": (
        [("a", "", "train"), ("b", "", "train")] * 2 + [("a", "", "test")],
        "x: 1 groups to test on; expected at least two, .*; give another group the split test",
    ),
    "one person to test on": (
        [(label, f"g{k}", "") for k in range(3) for label in "ab"],
        "x: 1 groups to test on; expected at least two, for an interval; add groups of images",
    ),
    "a draw that leaves a class out": (
        [(label, f"g{k}", "") for k in range(30) for label in "ab"]
        + [("c", f"c{k}", "") for k in "123"],
        "class 'c' has . groups to train on and . to test on; .*another prepare.test_fraction",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_told(fault: str) -> None:
    rows, message = FAULTS[fault]
    with pytest.raises(InputError, match=message) as error:
        numbered(listing(rows), "x", 0.05)
    assert "\n" not in str(error.value)


def test_a_class_may_have_no_test_images_where_the_split_is_given() -> None:
    rows = [("a", "", "train"), ("b", "", "train")] * 2 + [("a", "", "test")] * 2
    table, _ = numbered(listing(rows), "x", 0.2)
    assert table["split"].value_counts().to_dict() == {"train": 4, "test": 2}


@pytest.mark.parametrize(("people", "tested"), [(4, 2), (8, 2), (20, 4)])
def test_of_persons_who_show_every_class_at_least_two_are_tested_on(
    people: int, tested: int
) -> None:
    rows = [(label, f"person {k}", "") for k in range(people) for label in "abc"]
    table, _ = numbered(listing(rows), "x", 0.2)
    assert table["track"][table["split"] == "test"].nunique() == tested


@settings(deadline=None)
@given(grouped(), st.floats(0.1, 0.9), st.data())
def test_copies_are_on_one_side_and_move_no_other_image(
    listed: list[Listed], fraction: float, data: st.DataObject
) -> None:
    before = numbered(listed, "x", fraction)[0].set_index("member")["split"]
    digest = {image.member: image.member for image in listed}
    assert (
        numbered(copies_together(listed, digest), "x", fraction)[0]
        .set_index("member")["split"]
        .equals(before)
    )
    originals = data.draw(st.lists(st.sampled_from(listed), max_size=5))
    copies = [image._replace(member=f"z{k}.png", group="") for k, image in enumerate(originals)]
    digest |= {copy.member: image.member for copy, image in zip(copies, originals, strict=True)}
    after, _ = numbered(copies_together([*listed, *copies], digest), "x", fraction)
    of = after.set_index("member")
    for copy, image in zip(copies, originals, strict=True):
        assert of.loc[copy.member, "track"] == of.loc[image.member, "track"]
    assert of["split"].loc[before.index].equals(before)


def together_twin(listed: Sequence[Listed], digest: dict[str, str]) -> list[set[str]]:
    """Members that belong together: sets of one, joined as long as two have a reason to be."""
    kin = [{image.member} for image in listed]
    of = {image.member: image for image in listed}

    def joined(a: Listed, b: Listed) -> bool:
        same = (digest[a.member], a.label, a.split) == (digest[b.member], b.label, b.split)
        return same or (a.group == b.group != "")

    while True:
        for one, other in itertools.combinations(kin, 2):
            if any(joined(of[a], of[b]) for a in one for b in other):
                kin = [part for part in kin if part not in (one, other)] + [one | other]
                break
        else:
            return kin


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["", "", *"pqrs"]), st.sampled_from("xyz"))
    ),
    st.sampled_from([[""], ["train", "test"]]),
    st.randoms(use_true_random=False),
)
def test_copies_share_a_group_whatever_groups_they_named(
    rows: list[tuple[str, str, str]], splits: list[str], chance: random.Random
) -> None:
    side = {group: chance.choice(splits) for group in "pqrs"}
    listed = listing((la, g, side[g] if g else chance.choice(splits)) for la, g, _ in rows)
    digest = {image.member: row[2] for image, row in zip(listed, rows, strict=True)}
    found = copies_together(listed, digest)
    assert [image._replace(group="") for image in found] == [
        image._replace(group="") for image in listed
    ]
    kin = defaultdict(set)
    for image in found:
        kin[image.group].add(image.member)
    assert sorted(map(sorted, kin.values())) == sorted(map(sorted, together_twin(listed, digest)))
    named = {image.member: image.group for image in listed}
    for group, members in kin.items():
        names = sorted({named[member] for member in members} - {""})
        assert group == (names[0] if names else f"\0{min(members)}")
    mixed = chance.sample(listed, len(listed))
    assert sorted(copies_together(mixed, digest)) == sorted(found)


def test_the_same_picture_in_another_class_or_on_another_side_is_no_copy() -> None:
    rows = [("a", "", "train"), ("b", "", "train"), ("a", "g", "train"), ("a", "", "test")]
    listed = listing([*rows, ("a", "", "train")])
    found = copies_together(listed, dict.fromkeys((image.member for image in listed), "same"))
    assert [image.group for image in found] == ["g", "\x00001.png", "g", "\x00003.png", "g"]


@pytest.mark.parametrize("parts", [("",), ("train/", "test/")])
def test_no_image_is_validated_on_that_was_trained_on(
    tmp_path: Path, parts: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(0)
    for part, label, k in itertools.product(parts, ("cat", "dog"), range(20)):
        (tmp_path / part / label).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (5, 7, 3), np.uint8)
        for copy in "ab":
            Image.fromarray(pixels).save(tmp_path / part / f"{label}/{k}{copy}.png")
    index, _ = index_own(tmp_path, Folder(tmp_path), 0.2)
    train = index[index["split"] == "train"].reset_index(drop=True)
    track, label = train["track"].to_numpy(), train["label"].to_numpy()
    learn, held_out = split_by_track(track, label, val_fraction=0.2, seed=0)
    assert set(train["sha256"][held_out]).isdisjoint(train["sha256"][learn])


def test_images_that_are_the_same_are_not_divided(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for k in range(20):
            pixels = rng.integers(0, 256, (5, 7, 3), np.uint8)
            for copy in "abc"[: 1 + k % 3]:
                Image.fromarray(pixels).save(tmp_path / f"{label}/{k}{copy}.png")
    read: list[str] = []

    class Noted(Folder):
        def read(self, member: str) -> bytes:
            read.append(member)
            return super().read(member)

    index, _ = index_own(tmp_path, Noted(tmp_path), 0.4)
    assert sorted(read) == sorted(index["member"])  # each once
    same = index.groupby("sha256")
    assert same["split"].nunique().max() == same["track"].nunique().max() == 1
    assert index["track"].nunique() == 40
    assert audit(index, ("cat", "dog"))["exact_duplicates"]["across"] == []


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of four images each, one twice."""
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for k in range(4):
            pixels = rng.integers(0, 256, (5 + k, 7, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{label}/{k}.png")
    (tmp_path / "dog/4.png").write_bytes((tmp_path / "cat/2.png").read_bytes())
    return tmp_path


def test_the_index_is_as_that_of_the_archives(pictures: Path, tmp_path: Path) -> None:
    index, classes = index_own(pictures, Folder(pictures), 0.25)
    assert list(index.columns) == list(COLUMNS)
    assert classes.names == ("cat", "dog")
    for row in index.itertuples():
        data = (pictures / str(row.member)).read_bytes()
        assert row.sha256 == hashlib.sha256(data).hexdigest()
        assert (row.width, row.height) == decode(data, "x").size
        assert (row.roi_x1, row.roi_y1, row.roi_x2, row.roi_y2) == (
            0, 0, row.width - 1, row.height - 1,
        )  # fmt: skip
        assert row.image_id == f"{row.split}/{row.member}"
    twice = index[index["member"].isin(["cat/2.png", "dog/4.png"])]["image_id"].tolist()
    assert index.set_index("image_id")["duplicate_of"].loc[twice[1]] == twice[0]
    found = audit(index, classes.names)
    assert sum(map(len, found["exact_duplicates"].values())) == 1
    assert found["classes"]["1"]["train"] + found["classes"]["1"]["test"] == 5
    index.to_csv(tmp_path / "index.csv", index=False)
    pd.testing.assert_frame_equal(read_index(tmp_path / "index.csv"), index)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            lambda path: path.write_bytes(b"<html>"),
            r"cat/1\.png: expected an image \(PNG",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), r"cat/1\.png: expected an image"),
        (lambda path: path.unlink(), r"'cat/1\.png' is listed but not there"),
    ],
)
def test_a_fault_of_an_image_is_told(pictures: Path, fault, message: str) -> None:  # type: ignore[no-untyped-def]
    rows = [f"{label}/{k}.png,{label}\n" for label in ("cat", "dog") for k in range(4)]
    (pictures / "list.csv").write_text("path,label\n" + "".join(rows))
    fault(pictures / "cat/1.png")
    with pytest.raises(InputError, match=message):
        index_own(pictures / "list.csv", Folder(pictures), 0.25)


@pytest.mark.parametrize("count", [1, 5])
def test_a_reader_reads_folders_and_refuses_what_was_changed(pictures: Path, count: int) -> None:
    index, _ = index_own(pictures, Folder(pictures), 0.25)
    member = index["member"].tolist()
    changed = member.index("cat/0.png")
    (pictures / "cat/0.png").write_bytes((pictures / "cat/1.png").read_bytes())
    pool, read = workers(Reader(index, {"train": pictures, "test": pictures}, Eye(16)), count)
    sound = [k for k in range(len(index)) if k != changed]
    found = loaded_ahead(read, [sound, [changed]], pool)
    for row, (view,) in zip(sound, next(found)[0], strict=True):
        whole = decode((pictures / member[row]).read_bytes(), "x")
        np.testing.assert_array_equal(view, resized(np.asarray(whole), 16))
    with pytest.raises(InputError, match=r"cat/0\.png is not the image that data/index\.csv lists"):
        next(found)


def test_a_region_outside_is_told(pictures: Path) -> None:
    rows = [f"{label}/{k}.png,{label},0,0,6,5\n" for label in ("cat", "dog") for k in range(4)]
    header = "path,label,roi_x1,roi_y1,roi_x2,roi_y2\n"
    (pictures / "list.csv").write_text(header + "".join(rows))
    outside = r"0\.png: region of interest 0,0 to 6,5 is not inside 7 x 5"
    with pytest.raises(InputError, match=outside):
        index_own(pictures / "list.csv", Folder(pictures), 0.25)
