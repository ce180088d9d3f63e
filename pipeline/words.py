"""What pages and tables call things: GTSRB shows signs in tracks, other data classes in groups."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """The words for one kind of dataset, in the singular where a plural takes an s.

    Attributes:
        title: Of the report.
        images: Subject of "… went through a frozen AlexNet once".
        one: A class, as a reader sees it.
        many: Several of them.
        track: Images that belong together.
        tracks_are: What an interval over them is over.
        what_is_a_track: A sentence.
        subject: What a track shows, or is.
        frame: One image of a track.
        test: The test set, before "test images" or alone.
        test_by: What a test interval is over.
        caveat: Above the table of heads, in two lines of at most 96 letters.
        test_interval: Above the leaderboard, after what is said of validation.
        test_bars: Under a chart that has test beside validation.
        validation_bars: Under one that has validation alone.
        layer_bars: Under one that has test alone.
        citation: At the foot of the report; "" for none.
    """

    title: str
    images: str
    one: str
    many: str
    track: str
    tracks_are: str
    what_is_a_track: str
    subject: str
    frame: str
    test: str
    test_by: str
    caveat: str
    test_interval: tuple[str, str, str]  # before, in bold, after
    test_bars: str
    validation_bars: str
    layer_bars: str
    citation: str


SIGNS = Words(
    title="Traffic-sign heads on a frozen AlexNet",
    images="The images of the German Traffic Sign Recognition Benchmark",
    one="sign",
    many="signs",
    track="track",
    tracks_are="tracks, that is over physical signs",
    what_is_a_track="A track is one physical sign filmed in many near-identical frames.",
    subject="sign",
    frame="frame",
    test="official test",
    test_by="images",
    caveat=(
        "% of images; recall is the mean over classes. Intervals on test take images for "
        "independent,\nwhich those of one sign are not (the signs are not published): they are too "
        "short."
    ),
    test_interval=(
        "Wilson’s, over images. ",
        "Test images are not independent; which show the same sign is not published",
        ", so the real uncertainty on test is larger than its interval.",
    ),
    test_bars=(
        "; on the official test Wilson’s, which takes images for independent and is too short"
    ),
    validation_bars="",
    layer_bars="Wilson’s, which takes images for independent and is too short",
    citation="Data: J. Stallkamp, M. Schlipsing, J. Salmen, C. Igel, IJCNN 2011, pp. 1453–1460",
)
OWN = Words(
    title="Heads on a frozen AlexNet",
    images="The images",
    one="class",
    many="classes",
    track="group",
    tracks_are="groups",
    what_is_a_track=(
        "A group is what belongs together: images of one object, one person, one recording. An "
        "image that was given no group is its own."
    ),
    subject="group",
    frame="image",
    test="test",
    test_by="groups",
    caveat=(
        "% of images; recall is the mean over classes. Intervals are over groups (bootstrap), or "
        "Wilson's\nwhere every image is a group of its own; no group is on two sides."
    ),
    test_interval=(
        "likewise, over groups, none of which was trained on; ",
        "where every image is a group of its own, both are Wilson’s",
        ", which takes images for independent.",
    ),
    test_bars="; where every image is a group of its own, Wilson’s",
    validation_bars="; where every image is a group of its own, Wilson’s",
    layer_bars="by the bootstrap over groups; where every image is a group of its own, Wilson’s",
    citation="",
)
WORDS = {"gtsrb": SIGNS, "own": OWN}
