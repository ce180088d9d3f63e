"""Tests of the drawn signs and the filmed tracks."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.camera import Frame, film_track
from pipeline.drawing import draw_sign

CLASSES = range(43)


def film(class_id: int, seed: int, frames: int = 12, **sizes: int) -> list[Frame]:
    """Films one track of a class."""
    return film_track(draw_sign(class_id, 128), frames, np.random.default_rng(seed), **sizes)


def values(image: Image.Image) -> NDArray[np.int16]:
    """Returns the picture as signed numbers, so that differences do not wrap around."""
    return np.asarray(image, dtype=np.int16)


def extent(mask: NDArray[np.bool_]) -> list[int]:
    """Returns the first and last column and row with anything in them: x1, y1, x2, y2."""
    rows, columns = np.nonzero(mask)
    return [int(edge) for edge in (columns.min(), rows.min(), columns.max(), rows.max())]


def difference(one: Frame, other: Frame) -> float:
    """Returns how far two frames are apart, at one size."""
    small = [values(frame.image.crop(outer(frame)).resize((32, 32))) for frame in (one, other)]
    return float(np.abs(small[0] - small[1]).mean())


def outer(frame: Frame) -> tuple[int, int, int, int]:
    """Returns the sign's box as Pillow counts it, the lower right corner outside."""
    x1, y1, x2, y2 = frame.roi
    return x1, y1, x2 + 1, y2 + 1


def test_every_class_has_its_own_picture() -> None:
    """No two classes look alike, and all are RGBA pictures of the size asked for."""
    pictures = [values(draw_sign(class_id, 64)) for class_id in CLASSES]
    assert all(picture.shape == (64, 64, 4) for picture in pictures)
    apart = {
        pair: np.abs(pictures[pair[0]] - pictures[pair[1]]).mean()
        for pair in combinations(CLASSES, 2)
    }
    assert min(apart.values()) > 1.5, min(apart, key=lambda pair: apart[pair])


def test_sign_fills_the_picture_and_leaves_the_corners_free() -> None:
    """The tight box of a sign is what a track's sizes are measured by."""
    for class_id in CLASSES:
        alpha = values(draw_sign(class_id, 100))[..., 3]
        x1, y1, x2, y2 = extent(alpha > 127)
        assert x2 - x1 >= 97
        assert y2 - y1 >= 85
        assert not alpha[[0, -1], [0, -1]].any()


@pytest.mark.parametrize("class_id", [-1, 43])
def test_unknown_class_is_refused(class_id: int) -> None:
    """The message names the class and what there is."""
    with pytest.raises(ValueError, match=f"classes 0 to 42, not {class_id}"):
        draw_sign(class_id)


@pytest.mark.parametrize(("right", "left"), [(20, 19), (33, 34), (36, 37), (38, 39)])
def test_left_and_right_are_mirror_images(right: int, left: int) -> None:
    """Signs to the left are those to the right, seen in a mirror."""
    mirrored = ImageOps.mirror(draw_sign(left, 128))
    assert np.abs(values(draw_sign(right, 128)) - values(mirrored)).mean() < 1


@pytest.mark.parametrize(
    ("class_id", "side"), [(20, 1), (19, -1), (33, 1), (34, -1), (36, 1), (37, -1)]
)
def test_arrow_points_to_its_side(class_id: int, side: int) -> None:
    """The arrow as a whole lies on that side of its foot, where it starts."""
    pixels = values(draw_sign(class_id, 128))
    inside = np.hypot(*np.mgrid[-64:64, -64:64]) < 56
    is_blue_disc = class_id >= 33
    arrow = pixels[..., :3].min(axis=2) > 200 if is_blue_disc else pixels[..., :3].max(axis=2) < 60
    rows, columns = np.nonzero(arrow & inside & (pixels[..., 3] > 200))
    foot = columns[rows >= rows.max() - 10]
    assert side * (columns.mean() - foot.mean()) > 4


def test_same_seed_films_the_same_track() -> None:
    """A track depends on its generator alone."""
    for one, other in zip(film(25, 7), film(25, 7), strict=True):
        assert one.roi == other.roi
        assert one.image.tobytes() == other.image.tobytes()
    assert film(25, 7)[0].image.tobytes() != film(25, 8)[0].image.tobytes()


@pytest.mark.parametrize("class_id", [1, 12, 13, 14, 31])
def test_box_grows_as_asked_and_leaves_a_margin(class_id: int) -> None:
    """The longer side has the sizes asked for; the margin is GTSRB's 10 %, at least 5 px."""
    sizes = []
    for frame in film(class_id, 3, first_px=20, last_px=80):
        x1, y1, x2, y2 = frame.roi
        sizes.append(max(x2 - x1, y2 - y1) + 1)
        margins = x1, y1, frame.image.width - 1 - x2, frame.image.height - 1 - y2
        least = max(5, round(0.1 * sizes[-1]))
        assert all(least <= margin <= least + 2 for margin in margins)
        assert frame.image.mode == "RGB"
    assert (sizes[0], sizes[-1]) == (20, 80)
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("seed", range(6))
def test_box_encloses_the_sign(seed: int) -> None:
    """A bright and a dark plate filmed alike differ where the plate is, and nowhere else."""
    bright, dark = (Image.new("RGBA", (128, 128), colour) for colour in ("white", "black"))
    for plate in (bright, dark):
        plate.putalpha(draw_sign(15, 128).getchannel("A"))
    one, other = (
        film_track(plate, 1, np.random.default_rng(seed), first_px=60)[0]
        for plate in (bright, dark)
    )
    apart = np.abs(values(one.image) - values(other.image)).max(axis=2)
    assert one.roi == other.roi
    assert extent(apart > 0.4 * apart.max()) == pytest.approx(one.roi, abs=2)


def test_frames_of_one_track_are_closer_than_two_tracks() -> None:
    """Tracks differ far more than frames do, which is why splits go by track."""
    tracks = [film(2, seed) for seed in range(6)]
    within = [difference(one, other) for track in tracks for one, other in pairwise(track)]
    between = [difference(one[6], other[6]) for one, other in combinations(tracks, 2)]
    assert np.mean(between) > 3 * np.mean(within)
    assert np.median(between) > max(within)


def test_film_never_mirrors_the_sign() -> None:
    """A filmed sign is more like itself than like its mirror image."""
    sign = draw_sign(33, 128)
    clean = [
        values(picture.convert("L").resize((24, 24))) for picture in (sign, draw_sign(34, 128))
    ]
    for seed in range(20):
        frame = film(33, seed, frames=1, first_px=60, last_px=60)[0]
        filmed = values(frame.image.crop(outer(frame)).convert("L").resize((24, 24)))
        likeness = [np.corrcoef(filmed.ravel(), picture.ravel())[0, 1] for picture in clean]
        assert likeness[0] > likeness[1]


@pytest.mark.parametrize(
    ("frames", "first_px", "last_px", "message"),
    [(0, 25, 90, "1 frame or more"), (3, 90, 25, "from 90 to 25 px"), (3, 0, 9, "from 0 to 9 px")],
)
def test_impossible_track_is_refused(
    frames: int, first_px: int, last_px: int, message: str
) -> None:
    """No frames, or sizes which do not grow, are refused."""
    with pytest.raises(ValueError, match=message):
        film(0, 0, frames, first_px=first_px, last_px=last_px)
