"""``prepare``: the official archives to one index of images, and an audit of them."""

from PIL import Image

from pipeline.ahead import loaded_ahead
from pipeline.archives import NAMES, Archive, fetch_archive
from pipeline.classes import CLASS_NAMES
from pipeline.contact import chosen_images, contact_sheet
from pipeline.images import decode
from pipeline.signs import audit, index_images
from pipeline.thumbnails import thumbnail, write_thumbnails
from stages.console import bar, run, say
from stages.files import whole_file, write_json, write_table
from stages.params import load_params
from stages.places import AUDIT, INDEX, RESULTS, THUMBNAILS

SHEET = RESULTS / "contact_sheet.jpg"
PER_CLASS = 6  # images of each class on the sheet


def main() -> None:
    """Fetch what is missing, check it, read every annotation and image, make the pictures."""
    settings = load_params().prepare
    archives = {
        part: Archive(fetch_archive(settings.source, part, getattr(settings.md5, part)))
        for part in NAMES
    }
    say(f"prepare: reading the archives in {archives['train'].path.parent}")
    index = index_images(archives, lambda rows: bar(rows, desc="prepare", unit=" images"))
    findings = audit(index)
    write_table(INDEX, index)
    write_json(AUDIT, findings)

    split, member = index["split"].to_list(), index["member"].to_list()

    def read(row: int) -> Image.Image:
        return decode(archives[split[row]].read(member[row]), member[row])

    sheet = contact_sheet(chosen_images(index, PER_CLASS), CLASS_NAMES, read)
    with whole_file(SHEET) as part:
        sheet.save(part, "JPEG", quality=85)
    # Decoded a second time, which is seconds; `index_images` only checks, and keeps none.
    made = loaded_ahead(lambda row: thumbnail(read(row)), range(len(index)))
    small = bar(made, total=len(index), desc="thumbnails", unit=" images")
    with whole_file(THUMBNAILS) as part:
        write_thumbnails(part, zip(index["image_id"], small, strict=True))
    images, same = findings["images"], findings["exact_duplicates"]
    say(
        f"prepare: {images['train']} training images of {findings['tracks']['count']} tracks, "
        f"{images['test']} test images -> {INDEX}"
    )
    say(
        f"prepare: exact duplicates: {len(same['within_train'])} within training, "
        f"{len(same['within_test'])} within test, {len(same['across'])} across -> {AUDIT}"
    )
    say(f"prepare: what goes in, at a glance -> {SHEET}; each image, small -> {THUMBNAILS}")


if __name__ == "__main__":
    run(main)
