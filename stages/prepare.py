"""``prepare``: the images, wherever they come from, to one index, and an audit of them."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd
from PIL import Image

from pipeline.ahead import loaded_ahead
from pipeline.archives import NAMES, Archive, fetch_archive
from pipeline.audit import audit
from pipeline.classes import GTSRB, Classes
from pipeline.contact import MOST_CLASSES, chosen_images, contact_sheet
from pipeline.contents import Source
from pipeline.fetch import local_path
from pipeline.folder import Folder, own_root
from pipeline.images import decode
from pipeline.own import index_own
from pipeline.signs import index_images
from pipeline.thumbnails import thumbnail, write_thumbnails
from pipeline.words import WORDS
from stages.console import bar, run, say
from stages.files import whole_file, write_json, write_table
from stages.params import Prepare, load_params
from stages.places import AUDIT, CLASSES, INDEX, RESULTS, THUMBNAILS

SHEET = RESULTS / "contact_sheet.jpg"
PER_CLASS = 6  # images of each class on the sheet


def gathered(settings: Prepare) -> tuple[pd.DataFrame, Classes, Mapping[str, Source]]:
    """Every image that ``prepare.source`` has, indexed.

    Returns:
        The index, its classes, and by split what to read its images from.

    Raises:
        InputError: Whatever is wrong with the source.
    """

    def progress(rows: Iterable[Any]) -> Iterable[Any]:
        return bar(rows, desc="prepare", unit=" images")

    if (root := own_root(settings.source)) and (source := local_path(settings.source)):
        say(f"prepare: reading the images that {settings.source} has or lists")
        folder = Folder(root)
        index, classes = index_own(source, folder, settings.test_fraction, progress)
        return index, classes, {"train": folder, "test": folder}
    archives = {
        part: Archive(fetch_archive(settings.source, part, getattr(settings.md5, part)))
        for part in NAMES
    }
    say(f"prepare: reading the archives in {archives['train'].path.parent}")
    return index_images(archives, progress), GTSRB, archives


def main() -> None:
    """Fetch what is missing, check it, read every annotation and image, make the pictures."""
    index, classes, sources = gathered(load_params().prepare)
    findings = audit(index, classes.names)
    write_table(INDEX, index)
    write_json(CLASSES, asdict(classes))
    write_json(AUDIT, findings)

    split, member = index["split"].to_list(), index["member"].to_list()

    def read(row: int) -> Image.Image:
        return decode(sources[split[row]].read(member[row]), member[row])

    sheet = contact_sheet(chosen_images(index, PER_CLASS), classes.names, read)
    with whole_file(SHEET) as part:
        sheet.save(part, "JPEG", quality=85)
    # Decoded a second time, which is seconds; the index is made without keeping any.
    made = loaded_ahead(lambda row: thumbnail(read(row)), range(len(index)))
    small = bar(made, total=len(index), desc="thumbnails", unit=" images")
    with whole_file(THUMBNAILS) as part:
        write_thumbnails(part, zip(index["image_id"], small, strict=True))
    images, same = findings["images"], findings["exact_duplicates"]
    say(
        f"prepare: {images['train']} training images of {findings['tracks']['count']} "
        f"{WORDS[classes.dataset].track}s, {images['test']} test images -> {INDEX}"
    )
    say(
        f"prepare: exact duplicates: {len(same['within_train'])} within training, "
        f"{len(same['within_test'])} within test, {len(same['across'])} across -> {AUDIT}"
    )
    count = len(classes.names)
    shown = f"{MOST_CLASSES:,} of {count:,} classes" if count > MOST_CLASSES else "what goes in"
    say(f"prepare: {shown}, at a glance -> {SHEET}; each image, small -> {THUMBNAILS}")


if __name__ == "__main__":
    run(main)
