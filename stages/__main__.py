"""The ``fc7cache`` command. Exit status: 0 fine, 1 something found, 2 a mistake in the request."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from cache.describe import statistics, stored_nbytes
from cache.diff import diff as difference
from cache.export import export as export_layer
from cache.spec import Columns
from cache.store import FeatureStore, open_store
from cache.verify import verify as findings_of
from pipeline.errors import InputError
from pipeline.index import index_blocks
from pipeline.scaling import Kind
from stages import predict as images
from stages import trials
from stages.console import bar, printable, run
from stages.convert import convert_weights
from stages.doctor import examine
from stages.extract import columns_of
from stages.files import write_text
from stages.params import load_params
from stages.places import INDEX, STORE
from stages.reduced import write_reduced
from stages.repair import recompute, repair_at
from stages.scratch import entries as scratch_entries
from stages.scratch import remove
from stages.text import (
    SEEDED,
    layer_text,
    print_answer,
    print_difference,
    print_findings,
    print_scratch,
    scratch_facts,
)

app = typer.Typer(
    help="Look at a feature store, trust it, and use what was trained on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Store = Annotated[str, typer.Argument(help="A local path or an fsspec address.", metavar="STORE")]
Images = Annotated[
    list[str],
    typer.Argument(help="Image files, folders of them, or patterns such as 'a/**/*.jpg'."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command()
def predict(
    files: Images,
    head: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A trained head; else the best on validation."),
    ] = None,
    neighbours: Annotated[
        int, typer.Option(metavar="K", min=0, help="Also the K most similar training images.")
    ] = 0,
    html: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Also write a page with the pictures.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The five likeliest classes, by the head best on validation or by --head NAME."""
    params = load_params()
    found = images.image_files(files)
    answer = images.predict(params, head, found, neighbours)
    notices = images.notices(params, answer["seeded"])
    if html is not None:
        write_text(html, images.page(answer, found, notices))
    if as_json:
        _json(answer)
        return
    print_answer(answer, f"head {answer['head']}", notices)
    if html is not None:
        print(f"with the pictures: {html}")


@app.command()
def classify(files: Images, as_json: Json = False) -> None:
    """ImageNet classes, through fc8: a check that the base itself is sound."""
    answer = images.classify(load_params(), images.image_files(files))
    seeded = answer["weights"] == "seeded"
    if as_json:
        _json(answer | {"seeded": seeded})
    else:
        print_answer(answer, "ImageNet classes", [SEEDED] if seeded else [])


@app.command()
def info(store: Store, as_json: Json = False) -> None:
    """What is in a store and what made it."""
    opened = open_store(store)
    nbytes = sum(stored_nbytes(opened).values())
    layers = statistics(opened, lambda steps: bar(steps, desc="reading", unit=" shards"))
    if as_json:
        _json(
            {
                "store": store,
                "rows": opened.layout.rows,
                "dtype": opened.layout.dtype,
                "shards": len(opened.layout.shards),
                "nbytes": nbytes,
                "fingerprint": opened.fingerprint,
                "made_by": opened.made_by,
                "layers": {name: asdict(layer) for name, layer in layers.items()},
            }
        )
        return
    layout = opened.layout
    print(f"{store}\n")
    splits, counts = np.unique(opened.column("split"), return_counts=True)
    parts = ", ".join(f"{n:,} {split}" for split, n in zip(splits, counts, strict=True))
    print(f"rows         {layout.rows:,} ({printable(parts)})")
    print(f"on disk      {nbytes / 1e6:,.1f} MB in {len(layout.shards)} shards a layer")
    print(f"dtype        {layout.dtype}")
    print(f"fingerprint  {opened.fingerprint}")
    for part, value in opened.made_by.items():
        print(printable(f"  {part:<14} {', '.join(value) if isinstance(value, list) else value}"))
    for name, layer in layers.items():
        print(f"\n{layer_text(name, layer)}")


@app.command()
def verify(
    store: Store,
    recompute_rows: Annotated[
        int,
        typer.Option("--recompute", metavar="N", min=0, help="Push N random images through again."),
    ] = 0,
    rtol: Annotated[
        float, typer.Option(min=0, help="Largest relative error of a recomputed row to accept.")
    ] = 1e-4,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of images.")] = 0,
    as_json: Json = False,
) -> None:
    """Read every byte: checksums, missing rows, values, row ids. Status 1 if anything is wrong."""
    opened = FeatureStore(store)
    found = findings_of(
        opened, _expected(store, opened), lambda s: bar(s, desc="verify", unit=" shards")
    )
    problems = [finding.problem for finding in found]
    errors: dict[str, float] = {}
    if recompute_rows and not found:
        rng = np.random.default_rng(seed)
        n = min(recompute_rows, opened.layout.rows)
        rows = np.sort(rng.choice(opened.layout.rows, n, replace=False))
        apart = recompute(opened, load_params(), rows)
        errors = {layer: float(error.max()) for layer, error in apart.items()}
        problems += [
            f"{layer}: recomputed rows differ by up to {error:.1e}; expected at most {rtol:g}"
            for layer, error in errors.items()
            if error > rtol
        ]
    if as_json:
        _json({"store": store, "problems": problems, "largest_relative_error": errors})
    else:
        for layer, error in errors.items():
            print(f"{layer}: {n} images recomputed, largest relative error {error:.1e}")
        for problem in problems:
            print(f"found: {printable(problem)}")
        if not problems:
            print(
                f"{store}: sound; {opened.layout.rows:,} rows, "
                f"{len(opened.layout.shards)} shards a layer, every checksum right"
            )
    if problems:
        raise typer.Exit(1)


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A")],
    b: Annotated[str, typer.Argument(metavar="B")],
    rtol: Annotated[
        float, typer.Option(min=0, help="Largest relative error of a row to accept.")
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Compare two stores by image id, whatever their order. Status 1 if they differ."""
    result = difference(open_store(a), open_store(b), rtol)
    if as_json:
        _json(asdict(result) | {"found": result.found})
    else:
        print_difference(result, rtol)
    if result.found:
        raise typer.Exit(1)


@app.command()
def repair(store: Store = str(STORE)) -> None:
    """Compute the damaged shards again, and only those."""
    opened = FeatureStore(store)
    found = findings_of(
        opened, _expected(store, opened), lambda s: bar(s, desc="verify", unit=" shards")
    )
    if not found:
        print(f"{store}: sound; nothing to repair")
        return
    for finding in found:
        print(f"found: {printable(finding.problem)}")
    summary = repair_at(store, opened, load_params(), found)
    print(f"{store}: repaired; {summary['forwarded']} images computed again")


@app.command()
def export(
    store: Store,
    layer: Annotated[list[str], typer.Option(help="A layer; several only with --components.")],
    form: Annotated[str, typer.Option("--format", help="npz or parquet.")] = "npz",
    out: Annotated[Path | None, typer.Option(help="File to write; default LAYER.FORMAT.")] = None,
    components: Annotated[int | None, typer.Option(min=1, help="Reduce to so many.")] = None,
    scaling: Annotated[Kind, typer.Option(help="Before that.")] = "sqrt_l2",
) -> None:
    """Write a layer, or principal components of several, and every column."""
    path = out or Path(f"{'+'.join(layer)}.{form}")
    if components is not None and form == "npz" and len(set(layer)) == len(layer):
        write_reduced(open_store(store), layer, scaling, components, path)
    elif components is None and len(layer) == 1:
        export_layer(open_store(store), layer[0], path, form)
    else:
        raise InputError("expected one layer; or several, each once, with --components, as npz")
    print(f"{path}: {path.stat().st_size / 1e6:,.1f} MB")


@app.command()
def doctor(as_json: Json = False) -> None:
    """What here would make a run fail, or its numbers differ. Status 1 if there is a problem."""
    findings = examine()
    if as_json:
        _json({"findings": [asdict(finding) for finding in findings]})
    else:
        print_findings(findings)
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


@app.command()
def scratch(as_json: Json = False) -> None:
    """List what can be reused: stores, finished or not, with size, age and origin; trials."""
    found, nbytes = scratch_entries(), trials.nbytes()
    if as_json:
        _json({"stores": [scratch_facts(entry) for entry in found], "trials_nbytes": nbytes})
    else:
        print_scratch(found, nbytes)


@app.command()
def prune(
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0, help="Only what is older than this.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of scratch.")] = False,
) -> None:
    """Delete stores and trials in scratch; results stay, what is deleted is computed again."""
    if everything == (older_than is not None):
        raise typer.BadParameter("say which: --older-than DAYS or --all")
    found = [e for e in scratch_entries() if everything or e.age_s > 86400 * (older_than or 0)]
    for entry in found:
        remove(entry)
    freed = trials.forget(older_than) + sum(entry.nbytes for entry in found)
    print(f"removed {len(found)} stores and trials of heads, {freed / 1e6:,.1f} MB")


app.command()(convert_weights)


def _expected(store: str, opened: FeatureStore) -> Iterator[Columns]:
    """The index in blocks, for the project's own store; another store may hold other images."""
    if Path(store).resolve() == STORE.resolve() and INDEX.is_file():
        for block in index_blocks(INDEX, opened.layout.shard_rows):
            yield columns_of(block, opened.made_by["crop"])


def _json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def main() -> None:
    """Entry point."""
    run(app)


if __name__ == "__main__":
    main()
