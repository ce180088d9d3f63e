"""What the ``fc7cache`` command prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from cache.describe import LayerStatistics
from cache.diff import Difference
from stages.console import printable
from stages.finding import Finding
from stages.scratch import Entry

SEEDED = "This comes of seeded (stand-in) weights: it says nothing about the real network."


def layer_text(name: str, layer: LayerStatistics) -> str:
    """One layer's figures, for a person."""
    tallest = max(max(layer.histogram), 1)
    bars = "".join(" ▁▂▃▄▅▆▇█"[-(-8 * count // tallest)] for count in layer.histogram)
    return (
        f"{printable(name)}: {layer.features:,} features, "
        f"{layer.dead:,} of them zero in every row\n"
        f"  {layer.nbytes / 1e6:,.1f} MB on disk, {layer.ratio:.2f} times smaller than in memory\n"
        f"  mean {layer.mean:.4g}, deviation {layer.deviation:.4g}, {100 * layer.zero:.1f} % zero\n"
        f"  non-zero values: {layer.low:.4g} {bars} {layer.high:.4g}"
    )


def print_answer(answer: Mapping[str, Any], what: str, notices: Sequence[str]) -> None:
    """The likeliest classes of each image, and the training images most like it, if asked for."""
    for file, best in answer["images"].items():
        print(f"{printable(file)} ({what})")
        for entry in best:
            print(f"  {100 * entry['probability']:6.2f} %  {printable(entry['name'])}")
        for entry in answer.get("neighbours", {}).get(file, []):
            like = printable(f"{entry['image_id']} ({entry['name']})")
            print(f"  like {like}, cosine {entry['similarity']:.4f}")
    for notice in notices:
        print(notice)


def print_difference(result: Difference, rtol: float) -> None:
    """What differs, most telling first; the last line says whether anything does."""
    lines = [f"{part}: {left} in A, {right} in B" for part, (left, right) in result.made_by.items()]
    for side, ids in (("A", result.only_a), ("B", result.only_b)):
        if ids:
            lines.append(f"only in {side}: {len(ids)} images, the first is {ids[0]}")
    for side, names in (("A", result.layers_only_a), ("B", result.layers_only_b)):
        if names:
            lines.append(f"only in {side}: layers {', '.join(names)}")
    lines += [f"column {column}: {count} images differ" for column, count in result.columns.items()]
    for name, layer in result.layers.items():
        lines.append(f"{name}: {layer.identical:,} of {layer.rows:,} shared rows are identical")
        if layer.identical < layer.rows:
            lines.append(
                f"  largest relative error {layer.largest:.2e} ({layer.largest_at}), largest "
                f"difference of a feature {layer.largest_absolute:.2e}; "
                f"{layer.beyond:,} rows beyond {rtol:g}"
            )
    for line in lines:  # with names that a stranger's store may have
        print(printable(line))
    print("different" if result.found else "equal")


def print_findings(findings: Sequence[Finding]) -> None:
    """What `fc7cache doctor` found, and below each what to do about it."""
    for finding in findings:
        print(f"{finding.level:<8} {finding.about:<10} {printable(finding.text)}")
        if finding.remedy:
            print(f"{'':<19} -> {finding.remedy}")
    levels = [finding.level for finding in findings]
    print(f"\nproblems: {levels.count('problem')}, notes: {levels.count('note')}")


def scratch_facts(entry: Entry) -> dict[str, Any]:
    """One store in scratch, for programs."""
    return {
        "path": str(entry.path),
        "nbytes": entry.nbytes,
        "age_days": round(entry.age_s / 86400, 2),
        "fingerprint": entry.store.fingerprint if entry.store else None,
        "shards": len(entry.store.present_shards()) if entry.store else 0,
        "of_shards": len(entry.store.layout.shards) if entry.store else 0,
    }


def print_scratch(found: Sequence[Entry], trials_nbytes: int) -> None:
    """What lies in scratch, and how much in all."""
    for entry in found:
        print(f"{entry.path}  {entry.nbytes / 1e6:,.1f} MB, {entry.age_s / 86400:.1f} days old")
        if entry.store is None:
            print("  cannot be opened; nothing of it is reused")
            continue
        made_by, shards = entry.store.made_by, entry.store.layout.shards
        layers = ", ".join(made_by["layers"])
        print(
            f"  {made_by['variant']} ({made_by['weights']} weights), {layers}, "
            f"crop {made_by['crop']}, {entry.store.layout.rows:,} rows, "
            f"{len(entry.store.present_shards())} of {len(shards)} shards"
        )
    print(f"trials of heads: {trials_nbytes / 1e6:,.1f} MB")
    print(f"{(trials_nbytes + sum(entry.nbytes for entry in found)) / 1e6:,.1f} MB in all")
