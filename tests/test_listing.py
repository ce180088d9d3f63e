"""Folders of classes and CSVs: what is listed, and every mistake in them a line that says so."""

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.listing import Listed, list_csv, list_folder


def touched(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    return root


def test_folders_name_classes_and_groups(tmp_path: Path) -> None:
    names = ("cat/tom/2.png", "cat/tom/10.PNG", "cat/b.jpeg", "dog/tom/1.webp", "dog/ä b.ppm")
    assert set(list_folder(touched(tmp_path, *names))) == {
        Listed("cat/tom/2.png", "cat", "cat/tom", "", None),
        Listed("cat/tom/10.PNG", "cat", "cat/tom", "", None),
        Listed("cat/b.jpeg", "cat", "", "", None),
        Listed("dog/tom/1.webp", "dog", "dog/tom", "", None),
        Listed("dog/ä b.ppm", "dog", "", "", None),
    }


def test_train_and_test_above_the_classes_are_the_split(tmp_path: Path) -> None:
    names = ("train/cat/1.png", "train/dog/g/1.png", "test/cat/1.png", "test/dog/h/1.png")
    assert list_folder(touched(tmp_path, *names)) == [
        Listed("train/cat/1.png", "cat", "", "train", None),
        Listed("train/dog/g/1.png", "dog", "dog/g", "train", None),
        Listed("test/cat/1.png", "cat", "", "test", None),
        Listed("test/dog/h/1.png", "dog", "dog/h", "test", None),
    ]


def test_what_is_hidden_or_an_operating_systems_own_is_passed_over(tmp_path: Path) -> None:
    extra = (".git/x.png", "cat/.DS_Store", "cat/Thumbs.db", "dog/g/.1.png", "dog/desktop.ini")
    beside = ("README.md", "LICENSE", "labels.csv")  # in no class's folder
    found = list_folder(touched(tmp_path, "cat/1.png", "dog/g/1.png", *extra, *beside))
    assert [image.member for image in found] == ["cat/1.png", "dog/g/1.png"]


FOLDER_FAULTS = {
    "no image by its name": (
        ("cat/1.png", "cat/notes.txt"),
        r"cat/notes\.txt: not an image by its",
    ),
    "the same in a group": (("cat/g/1.png", "cat/g/labels"), r"cat/g/labels: not an image by its"),
    "what Pillow only writes": (("cat/1.pdf",), r"cat/1\.pdf: not an image by its name"),
    "what starts a program": (("cat/1.eps",), r"cat/1\.eps: not an image by its name"),
    "an image above": (("cat/1.png", "2.png"), r"2\.png: an image outside of any class; expected"),
    "too deep": (("cat/g/h/1.png",), r"cat/g/h: a folder inside a group; expected .*CLASS/GROUP"),
    "an empty class": (("cat/1.png", "dog/"), "dog: no images of this class; add some, or remove"),
    "an empty group": (
        ("cat/1.png", "dog/g/"),
        "dog/g: no images of this group; add some, or remo",
    ),
    "a group of hidden files": (("cat/1.png", "dog/g/.1.png"), "dog/g: no images of this group"),
    "an image beside the parts": (
        ("train/cat/1.png", "test/cat/1.png", "2.png"),
        r"2\.png: an image outside of any class; expected .*/train/CLASS/image",
    ),
    "an image in a part": (
        ("train/cat/1.png", "test/cat/1.png", "test/2.png"),
        r"test/2\.png: an image outside of any class; expected .*/test/CLASS/image",
    ),
    "a third part": (
        ("train/cat/1.png", "val/cat/2.png"),
        "expected the folders train and test, got train and val; images to validate on belong to",
    ),
    "train alone": (("train/cat/1.png",), "expected the folders train and test, got train;"),
    "other letters": (("Train/cat/1.png", "test/cat/1.png"), "train and test, got Train and test"),
    "a class beside": (
        ("train/cat/1.png", "test/cat/1.png", "dog/1.png"),
        "'dog' stands beside train and test; expected them alone",
    ),
    "control characters": (("cat/a\x1b[2J.png",), r"cat: 'a\\x1b\[2J\.png': a name that cannot be"),
    "no UTF-8": (("cat/\udcff.png",), r"cat: '\\udcff\.png': a name that cannot be printed"),
}


@pytest.mark.parametrize("fault", FOLDER_FAULTS)
def test_fault_in_a_folder_is_told(tmp_path: Path, fault: str) -> None:
    names, message = FOLDER_FAULTS[fault]
    with pytest.raises(InputError, match=message) as error:
        list_folder(touched(tmp_path, *names))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["gone", "file"])
def test_a_folder_that_is_gone_or_is_none_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"{name}: expected a folder of images, got ") as error:
        list_folder(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("place", ["x", "cat/x.png", "cat/tom/x.png"])
def test_a_link_to_itself_is_told(tmp_path: Path, place: str) -> None:
    touched(tmp_path, "cat/tom/1.png", "dog/1.png")
    (tmp_path / place).symlink_to(tmp_path / place)
    with pytest.raises(InputError, match=rf"{place}: expected an image or a folder, got ") as error:
        list_folder(tmp_path)
    assert "\n" not in str(error.value)


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "list.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_csv_needs_paths_and_labels_alone(tmp_path: Path) -> None:
    text = 'label,path\r\ncat,./a//1.png\r\n\r\nNA,"b, c.png"\r\n'
    expected = [Listed("a/1.png", "cat", "", "", None), Listed("b, c.png", "NA", "", "", None)]
    assert list_csv(written(tmp_path, text)) == expected
    assert list_csv(written(tmp_path, b"\xef\xbb\xbf" + text.encode())) == expected  # of Excel


def test_a_csv_may_say_the_rest(tmp_path: Path) -> None:
    text = (
        "path,label,group,split,roi_x1,roi_y1,roi_x2,roi_y2\n"
        "a.png,cat,tom,train,1,2,3,4\n"
        "b.png,cat,,test,0,0,9,9\n"
    )
    assert list_csv(written(tmp_path, text)) == [
        Listed("a.png", "cat", "tom", "train", (1, 2, 3, 4)),
        Listed("b.png", "cat", "", "test", (0, 0, 9, 9)),
    ]


CSV_FAULTS = {
    "misspelt column": ("path,label,gruop\n", r"unknown column 'gruop'; did you mean 'group'\?"),
    "strange column": (
        "path,label,weight_kg\n",
        "unknown column 'weight_kg'; expected path,label,",
    ),
    "column twice": ("path,label,label\n", "a column is there twice; got path,label,label"),
    "no path": ("label\n", "no column 'path'; expected at least path,label"),
    "no header": ("a.png,cat\n", r"unknown column 'a\.png'; "),
    "semicolons": ("path;label\n", "unknown column 'path;label'; "),
    "nothing": ("", "no column 'path'; expected at least path,label"),
    "three sides": (
        "path,label,roi_x1,roi_y1,roi_x2\n",
        "no column 'roi_y2'; expected all of roi_x1",
    ),
    "too few values": (
        "path,label\na.png,cat\nb.png\n",
        "line 3: expected as many values as there",
    ),
    "too many values": ("path,label\na.png,cat,dog\n", "line 2: expected as many values as there"),
    "empty label": ("path,label\na.png, \n", "line 2: no label; expected one in every line"),
    "space before a label": ("path,label\na.png, cat\n", "line 2: label ' cat' has a space at its"),
    "space after a path": ("path,label\na.png ,cat\n", "line 2: path 'a.png ' has a space at its"),
    "space after a group": (
        "path,label,group\na.png,cat,g1 \n",
        "line 2: group 'g1 ' has a space at its edge; remove it",
    ),
    "a group of a space": ("path,label,group\na.png,cat, \n", "line 2: group ' ' has a space at"),
    "empty path": ("path,label\n,cat\n", "line 2: no path; expected one in every line"),
    "absolute": (
        "path,label\n/etc/a.png,cat\n",
        "line 2: path '/etc/a.png'; expected one relative",
    ),
    "upwards": ("path,label\nb/../../a.png,cat\n", r"line 2: path 'b/\.\./\.\./a\.png'; expected"),
    "other split": ("path,label,split\na.png,cat,val\n", "line 2: split 'val'; expected train or"),
    "some without": ("path,label,split\na.png,cat,\n", "line 2: split ''; expected train or test"),
    "fraction": (
        "path,label,roi_x1,roi_y1,roi_x2,roi_y2\na.png,cat,0,0,1.5,2\n",
        r"line 2: roi_x1,.*: expected whole numbers, .*'1\.5'",
    ),
    "twice": ("path,label\na.png,cat\n./a.png,dog\n", r"'a\.png' is listed twice; expected each"),
    "two lines in one": (
        'path,label\na.png,"cat\ndog"\n',
        r"line 3: label 'cat\\ndog' cannot be pr",
    ),
    "open quote": (
        'path,label\na.png,"cat\n',
        "expected a CSV in UTF-8, got unexpected end of data",
    ),
    "no UTF-8": (b"path,label\na.png,\xff\n", "expected a CSV in UTF-8, got 'utf-8' codec can't"),
}


@pytest.mark.parametrize("fault", CSV_FAULTS)
def test_fault_in_a_csv_is_told(tmp_path: Path, fault: str) -> None:
    text, message = CSV_FAULTS[fault]
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=message) as error:
        list_csv(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))
