"""GTSRB's archives made into the index: every row right, every fault a line that says so."""

import copy
import csv
import hashlib
import io
import statistics
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import checksums
from loopback import serve, unreachable
from PIL import Image

from pipeline.archives import DOWNLOADS, NAMES, Archive, archive_path, fetch_archive
from pipeline.audit import audit
from pipeline.classes import CLASS_NAMES, FAMILIES
from pipeline.errors import InputError
from pipeline.images import decode
from pipeline.index import COLUMNS, read_index
from pipeline.signs import index_images

Members = dict[str, dict[str, bytes]]  # archive -> member -> bytes

TRAIN, TEST = "GTSRB/Final_Training/Images", "GTSRB/Final_Test/Images"
CSV, LABELS = f"{TRAIN}/00012/GT-00012.csv", "GT-final_test.csv"
FRAME, FRAME_NAME = f"{TRAIN}/00012/00001_00003.ppm", "00001_00003.ppm"


@pytest.fixture(scope="module")
def pristine(drawn: Path) -> Members:
    members: Members = {}
    for part, name in NAMES.items():
        with zipfile.ZipFile(drawn / name) as archive:
            members[part] = {member: archive.read(member) for member in archive.namelist()}
    return members


@pytest.fixture
def members(pristine: Members) -> Members:
    """What the archives hold, to be changed and written anew."""
    return copy.deepcopy(pristine)


@pytest.fixture(scope="module")
def index(drawn: Path) -> pd.DataFrame:
    return index_of(drawn)


def written(folder: Path, members: Members) -> Path:
    for part, content in members.items():
        with zipfile.ZipFile(folder / NAMES[part], "w") as archive:
            for member, data in content.items():
                archive.writestr(member, data)
    return folder


def index_of(folder: Path) -> pd.DataFrame:
    with ExitStack() as stack:
        archives = {}
        for part, name in NAMES.items():
            archives[part] = Archive(folder / name)
            stack.callback(archives[part].close)
        return index_images(archives)


def rows_of(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode()), delimiter=";"))


def edit(members: Members, member: str, name: str, **values: object) -> None:
    """Change values in the row of an image, e.g. ``Roi_X1=3``."""
    part = "test_labels" if member == LABELS else "train"
    rows = rows_of(members[part][member])
    (row,) = (row for row in rows if row["Filename"] == name)
    row |= {column.replace("_", "."): str(value) for column, value in values.items()}
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=";")
    writer.writeheader()
    writer.writerows(rows)
    members[part][member] = text.getvalue().encode()


def by_hand(members: Members) -> list[dict[str, Any]]:
    """The index but for ``duplicate_of``, written from the format's description."""
    found = []
    for member, data in members["train"].items():
        if not member.endswith(".csv"):
            continue
        folder = member.rsplit("/", 1)[0]
        for row in rows_of(data):
            track, frame = row["Filename"].removesuffix(".ppm").split("_")
            entry = {
                "image_id": f"train/{folder.rsplit('/', 1)[1]}/{track}_{frame}",
                "split": "train",
                "track": 100_000 * int(row["ClassId"]) + int(track),
                "frame": int(frame),
                "member": f"{folder}/{row['Filename']}",
            }
            found.append((0, int(row["ClassId"]), int(track), int(frame), row, entry))
    for row in rows_of(members["test_labels"][LABELS]):
        entry = {
            "image_id": f"test/{row['Filename'].removesuffix('.ppm')}",
            "split": "test",
            "track": -1,
            "frame": -1,
            "member": f"{TEST}/{row['Filename']}",
        }
        found.append((1, 0, 0, int(row["Filename"].removesuffix(".ppm")), row, entry))
    index = []
    for _, _, _, _, row, entry in sorted(found, key=lambda item: item[:4]):
        names = ["Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2"]
        entry |= {name.lower().replace(".", "_"): int(row[name]) for name in names}
        entry["label"] = int(row["ClassId"])
        data = members[entry["split"]][entry["member"]]
        entry["sha256"] = hashlib.sha256(data).hexdigest()
        index.append(entry)
    return index


def test_index_holds_what_the_archives_say(index: pd.DataFrame, pristine: Members) -> None:
    expected = by_hand(pristine)
    assert len(expected) == 290
    assert list(index.columns) == list(COLUMNS)
    assert index.drop(columns="duplicate_of").to_dict("records") == [
        {name: row[name] for name in COLUMNS if name != "duplicate_of"} for row in expected
    ]
    assert (index["duplicate_of"] == "").all()


def test_track_is_one_sign_of_one_class(index: pd.DataFrame) -> None:
    train = index[index["split"] == "train"]
    tracks = train.groupby("track")
    assert (tracks.size() == 8).all()
    assert (tracks["label"].nunique() == 1).all()
    assert len(tracks) == 25


def test_index_reads_back_as_it_was(index: pd.DataFrame, tmp_path: Path) -> None:
    index.to_csv(tmp_path / "index.csv", index=False)
    pd.testing.assert_frame_equal(read_index(tmp_path / "index.csv"), index)


def test_order_inside_the_archives_does_not_matter(
    members: Members, tmp_path: Path, index: pd.DataFrame
) -> None:
    backwards = {part: dict(reversed(content.items())) for part, content in members.items()}
    backwards["test_labels"][LABELS] = b"\r\n".join(
        [(lines := members["test_labels"][LABELS].splitlines())[0], *reversed(lines[1:])]
    )
    pd.testing.assert_frame_equal(index_of(written(tmp_path, backwards)), index)


def test_progress_sees_every_image(drawn: Path) -> None:
    seen = 0

    def count(rows: Any) -> Any:
        nonlocal seen
        for row in rows:
            seen += 1
            yield row

    archives = {part: Archive(drawn / name) for part, name in NAMES.items()}
    index_images(archives, count)
    for archive in archives.values():
        archive.close()
    assert seen == 290


def test_audit_counts(index: pd.DataFrame, pristine: Members) -> None:
    rows = by_hand(pristine)
    images = Counter((row["split"], row["label"]) for row in rows)
    frames = Counter(row["track"] for row in rows if row["split"] == "train")
    tracks = defaultdict(set)
    for row in rows:
        if row["split"] == "train":
            tracks[row["label"]].add(row["track"])
    found = audit(index, CLASS_NAMES)
    assert found["images"] == {"train": 200, "test": 90}
    assert found["classes"] == {
        str(label): {
            "name": CLASS_NAMES[label],
            "train": images["train", label],
            "test": images["test", label],
            "tracks": len(tracks[label]),
        }
        for label in range(43)
    }
    assert found["tracks"] == {
        "count": len(frames),
        "frames_min": min(frames.values()),
        "frames_max": max(frames.values()),
    }
    for side in ("width", "height"):
        sizes = [row[side] for row in rows]
        assert found["size_px"][side] == {
            "min": min(sizes),
            "median": statistics.median(sizes),
            "max": max(sizes),
        }
    assert found["exact_duplicates"] == {"within_train": [], "within_test": [], "across": []}


def test_audit_counts_tracks_of_unequal_length(index: pd.DataFrame) -> None:
    found = audit(index[index["image_id"] != "train/00018/00002_00007"], CLASS_NAMES)
    assert found["tracks"] == {"count": 25, "frames_min": 7, "frames_max": 8}


def test_duplicates_are_found_and_named(members: Members, tmp_path: Path) -> None:
    def plant(source: str, target: str) -> None:
        """Put the image of one id in the place of another, annotations included."""
        rows = {row["image_id"]: row for row in by_hand(members)}
        one, other = rows[source], rows[target]
        members[other["split"]][other["member"]] = members[one["split"]][one["member"]]
        folder, _, name = other["member"].rpartition("/")
        table = LABELS if other["split"] == "test" else f"{folder}/GT-{folder[-5:]}.csv"
        columns = ["Width", "Height", "Roi_X1", "Roi_Y1", "Roi_X2", "Roi_Y2"]
        edit(members, table, name, **{c: one[c.lower()] for c in columns})

    planted = [
        ("train/00001/00000_00001", "train/00038/00003_00002"),
        ("train/00014/00004_00000", "test/00011"),
        ("test/00030", "test/00031"),
        ("test/00030", "test/00080"),
    ]
    for pair in planted:
        plant(*pair)
    index = index_of(written(tmp_path, members))
    assert {b: a for a, b in planted} == {
        row.image_id: row.duplicate_of for row in index.itertuples() if row.duplicate_of
    }
    assert audit(index, CLASS_NAMES)["exact_duplicates"] == {
        "within_train": [["train/00001/00000_00001", "train/00038/00003_00002"]],
        "within_test": [["test/00030", "test/00031", "test/00080"]],
        "across": [["train/00014/00004_00000", "test/00011"]],
    }


def replaced(part: str, member: str, old: bytes, new: bytes) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        assert old in members[part][member]
        members[part][member] = members[part][member].replace(old, new)

    return change


def edited(member: str, name: str, **values: object) -> Callable[[Members], None]:
    return lambda members: edit(members, member, name, **values)


def with_data(part: str, member: str, data: Callable[[bytes], bytes]) -> Callable[[Members], None]:
    return lambda members: members[part].update({member: data(members[part][member])})


FAULTS: dict[str, tuple[Callable[[Members], None], str]] = {
    "no column": (
        replaced("train", CSV, b"Roi.X2", b"RoiX2"),
        r"GT-00012\.csv: no column 'Roi\.X2'; expected Filename;.*;ClassId, got .*;RoiX2;",
    ),
    "no class in the test labels": (
        replaced("test_labels", LABELS, b"ClassId", b"Class"),
        r"GT-final_test\.csv: no column 'ClassId'; .*, got .*;Class$",
    ),
    "commas": (replaced("train", CSV, b";", b","), "no column 'Filename'; .*, got Filename,Wid"),
    "unknown class": (
        edited(CSV, FRAME_NAME, ClassId=43),
        "00001_00003.ppm has unknown class 43; expected 0 to 42",
    ),
    "negative class": (
        edited(LABELS, "00007.ppm", ClassId=-1),
        "00007.ppm has unknown class -1; expected 0 to 42",
    ),
    "fraction": (edited(CSV, FRAME_NAME, Width=30.5), "expected whole numbers, got .*30.5"),
    "word": (edited(LABELS, "00007.ppm", Roi_Y1="top"), "expected whole numbers, got .*top"),
    "number beyond all": (
        edited(CSV, FRAME_NAME, Roi_X1=10**30),
        "expected whole numbers, got ",
    ),
    "empty field": (edited(CSV, FRAME_NAME, Height=""), "expected whole numbers, got "),
    "other naming": (
        edited(CSV, FRAME_NAME, Filename="picture.ppm"),
        r"GT-00012\.csv: expected TRACK_FRAME\.ppm, got 'picture\.ppm'",
    ),
    "listed twice": (
        edited(CSV, FRAME_NAME, Filename="00000_00000.ppm"),
        "image train/00012/00000_00000 is listed twice; expected each once",
    ),
    "no test images": (
        with_data("test_labels", LABELS, lambda data: data.splitlines()[0]),
        f"expected training and test images under {TRAIN}, got 200 and 0 in the CSVs",
    ),
    "no training images": (
        lambda members: members["train"].clear(),
        "expected training and test images under .*, got 0 and 90 in the CSVs",
    ),
    "nothing in a CSV": (with_data("train", CSV, lambda _: b""), r"GT-00012\.csv: "),
    "ragged CSV": (
        with_data("train", CSV, lambda data: data + b"00009_00000.ppm;1;2;3;4;5;6;2;8;9\r\n"),
        r"GT-00012\.csv: ",
    ),
    "no text in a CSV": (
        with_data("train", CSV, lambda _: b"\xff\xfe\x00;\x81"),
        r"GT-00012\.csv: ",
    ),
    "absent labels": (
        lambda members: members["test_labels"].clear(),
        r"GT-final_test\.csv is listed but not in the archive; fetch the archive anew",
    ),
    "absent image": (
        lambda members: members["train"].pop(FRAME),
        f"{FRAME} is listed but not in the archive; fetch the archive anew",
    ),
    "absent test image": (
        lambda members: members["test"].pop(f"{TEST}/00042.ppm"),
        f"{TEST}/00042.ppm is listed but not in the archive",
    ),
    "truncated image": (
        with_data("train", FRAME, lambda data: data[:-10]),
        f"{FRAME}: expected an image \\(PNG, .*\\), got .*truncated",
    ),
    "no image": (
        with_data("test", f"{TEST}/00042.ppm", lambda _: b"<html>404</html>"),
        f"{TEST}/00042.ppm: expected an image \\(PNG, .*\\), got cannot identify",
    ),
    "empty image": (
        with_data("train", FRAME, lambda _: b""),
        f"{FRAME}: expected an image \\(PNG, .*\\), got ",
    ),
    "other width": (
        edited(CSV, FRAME_NAME, Width=777),
        rf"{FRAME} is \d+ x \d+ pixels; its CSV says 777 x \d+$",
    ),
    "other height": (
        edited(LABELS, "00042.ppm", Height=777),
        r"00042\.ppm is \d+ x \d+ pixels; its CSV says \d+ x 777$",
    ),
}
OUTSIDE = {
    "left": {"Roi_X1": -1},
    "above": {"Roi_Y1": -1},
    "right": {"Roi_X2": "width"},
    "below": {"Roi_Y2": "height"},
    "turned": {"Roi_X1": 20, "Roi_X2": 19},
    "upside down": {"Roi_Y1": 20, "Roi_Y2": 19},
}


def assert_one_line(error: pytest.ExceptionInfo[InputError], folder: Path) -> None:
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(folder))


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_told(members: Members, tmp_path: Path, fault: str) -> None:
    change, message = FAULTS[fault]
    change(members)
    with pytest.raises(InputError, match=message) as error:
        index_of(written(tmp_path, members))
    assert_one_line(error, tmp_path)


@pytest.mark.parametrize("side", OUTSIDE)
def test_region_outside_is_told(
    members: Members, tmp_path: Path, index: pd.DataFrame, side: str
) -> None:
    image = index.set_index("member").loc[FRAME]
    values = {column: image.get(value, value) for column, value in OUTSIDE[side].items()}
    edit(members, CSV, FRAME_NAME, **values)
    with pytest.raises(InputError, match=rf"{FRAME}: region of interest .* is not in") as error:
        index_of(written(tmp_path, members))
    assert_one_line(error, tmp_path)


def test_region_may_be_the_whole_image_or_a_pixel(
    members: Members, tmp_path: Path, index: pd.DataFrame
) -> None:
    image = index.set_index("member").loc[FRAME]
    right, below = image["width"] - 1, image["height"] - 1
    edit(members, CSV, FRAME_NAME, Roi_X1=0, Roi_Y1=0, Roi_X2=right, Roi_Y2=below)
    edit(members, CSV, "00001_00004.ppm", Roi_X1=9, Roi_Y1=9, Roi_X2=9, Roi_Y2=9)
    assert len(index_of(written(tmp_path, members))) == 290


def test_damage_inside_the_archive_is_told(drawn: Path, tmp_path: Path) -> None:
    for name in NAMES.values():
        (tmp_path / name).write_bytes((drawn / name).read_bytes())
    path = tmp_path / NAMES["train"]
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(FRAME)
    data = bytearray(path.read_bytes())
    data[entry.header_offset + 200] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"{FRAME} is damaged .*; fetch the archive") as error:
        index_of(tmp_path)
    assert_one_line(error, tmp_path)


def test_no_flipped_bit_of_an_archive_passes(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.ppm", b"P6 2 2 255\n" + bytes(12))
    whole = path.read_bytes()
    escaped: dict[str, list[int]] = defaultdict(list)
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            with closing(Archive(path)) as flipped:
                if flipped.read("image.ppm") != b"P6 2 2 255\n" + bytes(12):
                    escaped["other bytes"].append(bit)
        except InputError:
            pass
        except Exception as error:
            escaped[repr(error)].append(bit)
    assert not escaped


@pytest.mark.parametrize("keep", [0, 1000, -100])
def test_no_zip_is_told(drawn: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes((drawn / NAMES["train"]).read_bytes()[:keep])
    with pytest.raises(InputError, match=r"a\.zip: expected a zip archive, got .*; run") as error:
        Archive(path)
    assert_one_line(error, tmp_path)


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.zip: expected a zip archive, got .*No such file"):
        Archive(tmp_path / "a.zip")


@pytest.mark.parametrize("form", [str, Path.as_uri, lambda path: f"{path}/"])
def test_local_archives_are_taken_where_they_lie(drawn: Path, form: Any) -> None:
    for part, md5 in checksums(drawn).items():
        assert fetch_archive(form(drawn), part, md5) == drawn / NAMES[part]
        assert archive_path(form(drawn), part) == drawn / NAMES[part]


def test_other_md5_names_both(drawn: Path) -> None:
    got = checksums(drawn)["test"]
    with pytest.raises(
        InputError,
        match=f"Test_Images.zip: expected md5 {'0' * 32}, got {got}; .*prepare.md5.test to {got}$",
    ) as error:
        fetch_archive(str(drawn), "test", "0" * 32)
    assert_one_line(error, drawn)


def test_missing_archive_says_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=rf"no such archive; expected {NAMES['train']} with md5 {'a' * 32}.*demo$"
    ) as error:
        fetch_archive(str(tmp_path), "train", "a" * 32)
    assert_one_line(error, tmp_path)


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory is an empty one."""
    monkeypatch.chdir(tmp_path)


DATA = b"some archive" * 10_000
DATA_MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize("slash", ["", "/"])
def test_download_is_fetched_once(slash: str) -> None:
    with serve({NAMES["test"]: DATA}) as site:
        for _ in range(2):
            path = fetch_archive(site.address + slash, "test", DATA_MD5)
            assert site.asked == [NAMES["test"]]
    assert path == DOWNLOADS / NAMES["test"]
    assert path.read_bytes() == DATA


@pytest.mark.usefixtures("away")
def test_broken_download_is_not_kept() -> None:
    with serve({NAMES["test"]: DATA}) as site:
        site.breaks_off = True
        with pytest.raises(InputError, match=f"cannot fetch {site.address}/{NAMES['test']} "):
            fetch_archive(site.address, "test", DATA_MD5)
        assert list(DOWNLOADS.iterdir()) == []
        site.breaks_off = False
        assert fetch_archive(site.address, "test", DATA_MD5).read_bytes() == DATA


@pytest.mark.usefixtures("away")
def test_download_with_other_md5_is_not_kept_and_names_both() -> None:
    message = f"expected md5 {'0' * 32}.*{DATA_MD5}"
    with serve({NAMES["test"]: DATA}) as site, pytest.raises(InputError, match=message):
        fetch_archive(site.address, "test", "0" * 32)
    assert list(DOWNLOADS.iterdir()) == []


@pytest.mark.usefixtures("away")
def test_offline_says_what_to_put_where() -> None:
    source, name = unreachable(), NAMES["train"]
    with pytest.raises(
        InputError,
        match=f"^cannot fetch {source}/{name} .expected md5 {'a' * 32}.: .*Connection.*"
        f"Put the file at {DOWNLOADS / name} yourself and run again.*make demo$",
    ) as error:
        fetch_archive(source, "train", "a" * 32)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("format_", ["PPM", "PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_cut_short_images_never_pass(format_: str) -> None:
    whole = io.BytesIO()
    Image.effect_noise((20, 20), 50).convert("RGB").save(whole, format_)
    data = whole.getvalue()
    assert decode(data, "x").size == (20, 20)
    for length in range(0, int(0.9 * len(data)), 7):
        with pytest.raises(InputError, match=r"^x: expected an image \(PNG, "):
            decode(data[:length], "x")


def test_images_are_rgb_whatever_they_were(tmp_path: Path) -> None:
    for mode in ("1", "L", "P", "RGBA", "CMYK"):
        data = io.BytesIO()
        Image.new(mode, (3, 2)).save(data, "TIFF")
        assert decode(data.getvalue(), "x").mode == "RGB"


def test_huge_images_are_refused() -> None:
    for side in (11_000, 30_000):
        header = f"P6 {side} {side} 255\n".encode()
        with pytest.raises(InputError, match=r"^x: expected .*decompression bomb"):
            decode(header, "x")


def test_no_index_is_told(tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    with pytest.raises(InputError, match="no index of images; run `dvc repro prepare`"):
        read_index(path)
    for text in (
        "",
        "a,b\n1,2\n",
        "\x00",
        ",".join(COLUMNS) + "\n" + ",".join("x" for _ in COLUMNS),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=r"not an index of images .*; run `dvc repro prepare`"):
            read_index(path)


def test_families_divide_the_classes() -> None:
    members = sorted(label for family in FAMILIES.values() for label in family)
    assert members == list(range(43)) == list(range(len(CLASS_NAMES)))
    assert all(a < b for labels in FAMILIES.values() for a, b in pairwise(labels))
    assert len(set(CLASS_NAMES)) == 43
