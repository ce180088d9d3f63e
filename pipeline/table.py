"""The comparison as text, for a terminal."""

from pipeline.comparison import Pair
from pipeline.results import HeadResult, Provenance


def comparison_text(heads: list[HeadResult], pairs: list[Pair], provenance: Provenance) -> str:
    """The leaderboard, best on test first, and which differences are more than chance."""
    words = provenance.words
    width = max(len("head"), *(len(head.name) for head in heads))
    interval = f"{100 * provenance.confidence:g} % interval"
    part = f"{'top-1':>6}  {interval:<15}"
    lines = [
        f"{'':{width}}  {f'validation ({words.track}s)':<26}"
        f"{f'test ({words.test_by})':<24}".rstrip(),
        f"{'head':{width}}  {part}   {part}  {'seeds':>6} {'recall':>6} {'top-5':>6} {'NLL':>6} "
        f"{'ECE':>5}  features",
    ]
    ranked = sorted(heads, key=lambda head: -head.test.accuracy)
    for head in ranked:
        test, deviation = head.test, head.seed_deviation
        shares = (
            f"{100 * s.accuracy:6.2f}  {100 * s.accuracy_low:5.2f} to {100 * s.accuracy_high:5.2f} "
            for s in (head.validation, test)
        )
        figures = (
            "" if deviation is None else f"±{100 * deviation:.2f}",
            f"{100 * test.macro_recall:.2f}",
            f"{100 * test.top5:.2f}",
            f"{test.nll:.3f}",
        )
        lines.append(
            f"{head.name:{width}}  {'   '.join(shares)}  "
            + " ".join(f"{figure:>6}" for figure in figures)
            + f" {100 * test.ece:5.2f}  {'+'.join(head.features)}"
        )
    if pairs:
        both = sum(p.significant and not p.validation_low <= 0 <= p.validation_high for p in pairs)
        alike = [f"{p.first} and {p.second}" for p in pairs if not p.significant]
        lines += [
            "",
            f"{len(pairs) - len(alike)} of {len(pairs)} pairs of heads differ on test (exact "
            "McNemar tests of the first seeds, Holm's correction),",
            f"{both} of them on validation too (bootstrap over {words.track}s)",
            *([f"not told apart: {', '.join(alike)}"] if alike else []),
        ]
    for head in ranked:
        if head.leak:
            frames, tracks, truth = (
                f"{100 * part.share:.2f} %"
                for part in (head.leak.frames, head.leak.tracks, head.leak.test)
            )
            lines.append(
                f"{head.name}: a random split of {words.frame}s would claim {frames}, "
                f"a split by {words.track} {tracks}; the test set says {truth}"
            )
    if provenance.notice:
        lines += ["", provenance.notice]
    caution = [provenance.caution] if provenance.caution else []
    return "\n".join([words.caveat, *caution, "", *lines, ""])
