"""Films a sign as a camera in an approaching car would: one track of growing, imperfect frames.

What belongs to the place and the day (tilt, fading, background, light, shadow, blur, noise level)
is drawn by lot once per track; only framing, exposure and noise vary from frame to frame. Thus the
frames of one track are near-identical, as in GTSRB, and those of two tracks are not.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

Pixels = NDArray[np.float32]
Size = tuple[int, int]

MARGIN = 0.1
MIN_MARGIN_PX = 5
MAX_TILT_DEGREES = 12.0
SCENE_PX = 160
EYE_DISTANCE = 3.0  # In half sign widths: near enough for the perspective to show.


class Frame(NamedTuple):
    """One picture of a track.

    Attributes:
        image: RGB picture of the sign and a margin around it.
        roi: The sign's tight box (x1, y1, x2, y2) in pixels, both corners inside the box, as in
            GTSRB's Roi columns.
    """

    image: Image.Image
    roi: tuple[int, int, int, int]


@dataclass(frozen=True)
class Setting:
    """What the frames of one track have in common.

    Attributes:
        sign: RGBA picture of the tilted and faded sign, cropped to its tight box.
        scene: RGB picture of the background, SCENE_PX square.
        drift: Pixels by which the view of the background moves in x and y during the approach.
        shadow: Mode F picture of the share of light which arrives, 0 to 1, SCENE_PX square.
        exposure: float32 [256, 3], the value the sensor gives each 8-bit value of each channel.
        blur: Standard deviation of the blur in x and y, as shares of the sign's size.
        noise: Standard deviation of the sensor noise, in 8-bit values.
    """

    sign: Image.Image
    scene: Image.Image
    drift: tuple[float, float]
    shadow: Image.Image
    exposure: Pixels
    blur: tuple[float, float]
    noise: float

    def shoot(self, size_px: int, progress: float, rng: np.random.Generator) -> Frame:
        """Takes one picture of the sign at a size.

        Args:
            size_px: Longer side of the sign, in pixels.
            progress: Share of the approach which is done, 0 to 1.
            rng: Draws the framing, the exposure and the noise.
        """
        shrink = size_px / max(self.sign.size)
        sign = self.sign.resize(
            (round(self.sign.width * shrink), round(self.sign.height * shrink)),
            reducing_gap=2.0,
        )
        margin = max(MIN_MARGIN_PX, round(MARGIN * size_px))
        left, top, right, bottom = (int(margin + spare) for spare in rng.integers(0, 3, 4))
        image = self.background((left + sign.width + right, top + sign.height + bottom), progress)
        image.paste(sign, (left, top), sign)

        blur_x, blur_y = (share * size_px * rng.uniform(0.9, 1.1) for share in self.blur)
        image = image.filter(ImageFilter.GaussianBlur((blur_x, blur_y)))
        light = np.asarray(self.shadow.resize(image.size)) * np.float32(rng.uniform(0.96, 1.04))
        pixels = self.exposure[np.asarray(image), range(3)] * light[:, :, np.newaxis]
        pixels += self.noise * rng.standard_normal(pixels.shape, np.float32)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        return Frame(image, (left, top, left + sign.width - 1, top + sign.height - 1))

    def background(self, size: Size, progress: float) -> Image.Image:
        """Returns the view of the scene behind the sign, which narrows during the approach."""
        side = SCENE_PX * (0.75 - 0.15 * progress)
        x, y = ((SCENE_PX - side) / 2 + drift * progress for drift in self.drift)
        return self.scene.resize(size, Image.Resampling.BILINEAR, box=(x, y, x + side, y + side))


def film_track(
    sign: Image.Image,
    frames: int,
    rng: np.random.Generator,
    *,
    first_px: int = 25,
    last_px: int = 90,
) -> list[Frame]:
    """Films one approach to one physical sign.

    Args:
        sign: RGBA picture of the sign from the front, transparent outside its outline.
        frames: Number of frames, 1 or more.
        rng: Source of all that is left to chance; the same state films the same track.
        first_px: Longer side of the sign in the first frame, in pixels.
        last_px: The same in the last frame; at least first_px.

    Returns:
        The frames in order. At a steady speed the distance shrinks evenly, so the sign grows
        slowly at first and fast at the end.

    Raises:
        ValueError: There are no frames, or the sizes are not 1 <= first_px <= last_px.
    """
    if frames < 1:
        raise ValueError(f"a track has 1 frame or more, not {frames}")
    if not 1 <= first_px <= last_px:
        raise ValueError(f"a sign grows from 1 px or more, not from {first_px} to {last_px} px")
    setting = choose_setting(sign, rng)
    progress = np.linspace(0.0, 1.0, frames)
    sizes = 1 / ((1 - progress) / first_px + progress / last_px)
    return [
        setting.shoot(round(size), share, rng)
        for size, share in zip(sizes.tolist(), progress.tolist(), strict=True)
    ]


def choose_setting(sign: Image.Image, rng: np.random.Generator) -> Setting:
    """Draws by lot under which circumstances a sign is filmed."""
    faded = ImageEnhance.Color(sign).enhance(rng.uniform(0.6, 1.05))
    blur = rng.uniform(0.002, 0.014)
    smears = ((blur, blur), (blur + 0.014, blur / 3), (blur / 3, blur + 0.014))
    drift_x, drift_y = rng.uniform(-0.06, 0.06, 2) * SCENE_PX
    return Setting(
        sign=tilt(ImageEnhance.Brightness(faded).enhance(rng.uniform(0.7, 1.0)), rng),
        scene=paint_scene(rng),
        drift=(drift_x, drift_y),
        shadow=cast_shadow(rng),
        exposure=choose_exposure(rng),
        blur=smears[rng.choice(3, p=(0.6, 0.25, 0.15))],
        noise=rng.uniform(1, 5),
    )


def tilt(sign: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Returns the sign turned a little about all three axes, cropped to its tight box."""
    yaw, pitch, roll = np.radians(rng.uniform(-MAX_TILT_DEGREES, MAX_TILT_DEGREES, 3))
    turn = rotation(yaw, 0, 2) @ rotation(pitch, 1, 2) @ rotation(roll, 0, 1)
    # Takes a point (x, y, 1) of the sign, its edges at ±1, to (x', y', 1 + z' / distance).
    project = np.column_stack([turn[:, :2] / [[1], [1], [EYE_DISTANCE]], [0, 0, 1]])
    # A picture half as large again holds the turned corners too.
    room = Image.new("RGBA", (sign.width * 3 // 2, sign.height * 3 // 2))
    # Pillow asks which point of the old picture each point of the new one shows.
    back = to_pixels(sign, sign) @ np.linalg.inv(project) @ np.linalg.inv(to_pixels(sign, room))
    weights = (back / back[2, 2]).ravel()[:8].tolist()
    bicubic = Image.Resampling.BICUBIC
    tilted = sign.transform(room.size, Image.Transform.PERSPECTIVE, weights, bicubic)
    return tilted.crop(tilted.getchannel("A").point(lambda alpha: 255 * (alpha > 127)).getbbox())


def to_pixels(sign: Image.Image, picture: Image.Image) -> NDArray[np.float64]:
    """Returns the 3 by 3 matrix from sign coordinates to pixels of a picture centred on it."""
    return np.array(
        [
            [sign.width / 2, 0, picture.width / 2],
            [0, sign.height / 2, picture.height / 2],
            [0, 0, 1],
        ]
    )


def rotation(angle: float, first: int, second: int) -> NDArray[np.float64]:
    """Returns the 3 by 3 matrix which turns one axis towards another, by an angle in radians."""
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = math.cos(angle)
    matrix[second, first], matrix[first, second] = math.sin(angle), -math.sin(angle)
    return matrix


def choose_exposure(rng: np.random.Generator) -> Pixels:
    """Returns the sensor's values in ordinary, dark or washed-out light, float32 [256, 3]."""
    lights = np.array([(0.5, 1.05, 0.0, 0.08), (0.18, 0.4, 0.0, 0.04), (0.3, 0.5, 0.3, 0.5)])
    least_gain, most_gain, least_lift, most_lift = rng.choice(lights, p=(0.55, 0.28, 0.17))
    gain, lift = rng.uniform(least_gain, most_gain), rng.uniform(least_lift, most_lift)
    warmth, greenness = rng.normal(0, (0.07, 0.02))
    tint = np.array([1 + warmth, 1 + greenness, 1 - warmth])
    light = np.linspace(0, 1, 256)[:, np.newaxis] ** rng.uniform(0.8, 1.5)
    return np.asarray(255 * (lift + gain * light) * tint, np.float32)


def cast_shadow(rng: np.random.Generator) -> Image.Image:
    """Returns the light which arrives: all of it, or less on one side of a ragged edge."""
    depth = rng.uniform(0.3, 0.6) if rng.random() < 0.25 else 0.0
    angle, place = rng.uniform(0, 2 * math.pi), rng.uniform(-0.2, 0.2)
    down, right = np.mgrid[-0.5 : 0.5 : SCENE_PX * 1j, -0.5 : 0.5 : SCENE_PX * 1j]
    across = right * math.cos(angle) + down * math.sin(angle) + 0.3 * (texture(rng, 4, 12) - 0.5)
    return Image.fromarray((1 - depth * (20 * (across - place)).clip(0, 1)).astype(np.float32))


def paint_scene(rng: np.random.Generator) -> Image.Image:
    """Returns a background of two out of sky, foliage and building, and the sign's post."""
    painters = (paint_sky, paint_foliage, paint_building)
    behind, before = (painters[k](rng) for k in rng.choice(3, 2, replace=False))
    cover = (25 * (texture(rng, 3, 7, 30) - rng.uniform(0.3, 0.7))).clip(0, 1)[..., np.newaxis]
    scene = behind + cover * (before - behind)
    scene[SCENE_PX // 2 :, SCENE_PX // 2 - 3 : SCENE_PX // 2 + 3] = rng.uniform(0.3, 0.7)
    return Image.fromarray((255 * scene.clip(0, 1)).astype(np.uint8))


def paint_sky(rng: np.random.Generator) -> Pixels:
    """Returns a gradient from blue or grey to a pale horizon, with clouds."""
    grey = rng.uniform(0.55, 0.85)
    zenith = grey + rng.uniform(0, 1) * (np.array((0.3, 0.55, 0.9)) - grey)
    height = np.linspace(0, 1, SCENE_PX)[:, np.newaxis, np.newaxis]
    paleness = 0.6 * height + 0.4 * texture(rng, 3, 8)[..., np.newaxis]
    return np.asarray(zenith + (0.95 - zenith) * paleness, np.float32)


def paint_foliage(rng: np.random.Generator) -> Pixels:
    """Returns leaves: contrasty noise of all grain sizes in a green or a brown."""
    leaf = rng.uniform((0.25, 0.35, 0.1), (0.7, 0.75, 0.35)).astype(np.float32)
    light = 0.55 + 2.2 * (texture(rng, 6, 18, 50, 110) - 0.5)
    return leaf * light[..., np.newaxis]


def paint_building(rng: np.random.Generator) -> Pixels:
    """Returns a wall with rows of darker or brighter windows, or stripes of cladding."""
    wall = rng.uniform(0.35, 0.9) * rng.uniform((0.95, 0.75, 0.6), 1.0)
    inside = [np.arange(SCENE_PX) % rng.integers(14, 50) < rng.integers(6, 30) for _ in range(2)]
    windows = inside[0][:, np.newaxis] & inside[1]
    light = 1 + windows * rng.uniform(-0.7, 0.25) + 0.15 * (texture(rng, 5, 60) - 0.5)
    return np.asarray(wall * light[..., np.newaxis], np.float32)


def texture(rng: np.random.Generator, *grains: int) -> Pixels:
    """Returns the mean of smooth noises, each of so many grains a side, around 0.5.

    Returns:
        float32 [SCENE_PX, SCENE_PX].
    """
    noises = (Image.fromarray(rng.random((count, count), np.float32)) for count in grains)
    layers = [np.asarray(noise.resize((SCENE_PX, SCENE_PX))) for noise in noises]
    return np.asarray(np.mean(layers, axis=0), np.float32)
