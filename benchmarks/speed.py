"""Stage one beside what one would write without it: images per second, interleaved, in one run.

    python -m benchmarks.speed [--images N] [--rounds R] [--only NAME …]

Same network (fc7 of bvlc AlexNet), same seeded weights, same made images of GTSRB's sizes, in
archives like GTSRB's. *Network* is batches of pixels to features; *end to end*, archive bytes to
features on disk: a published store here, `np.save` after a loop that reads, decodes and resizes
in one thread there. Each tool runs in a process of its own, one at a time, in turn; all are
started, compiled and warm before the first round. First every tool's features are held against
ours. Those that are not installed (`pip install -e .[bench]`) are left out, and named.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contestants import CONTESTANTS, Batches, KerasPredict
from benchmarks.made import ROOT, make_archives, write_params
from pipeline import alexnet, backend
from pipeline.archives import Archive, archive_path
from pipeline.features import Network, forward
from pipeline.images import cropped, decode, resized
from pipeline.index import read_index
from pipeline.weights import seeded_weights
from stages.base import FrozenBase
from stages.extract import extract
from stages.params import load_params
from stages.places import INDEX, STORE

OURS = {"fc7cache": "float32", "fc7cache, bfloat16": "bfloat16"}
TOLERANCE, ROUGH = 1e-4, 0.05  # of the norm: of float32, and of bfloat16
MAX_PIXELS = 8192  # images held in memory, ready for the network
PACKAGES = ("tensorflow", "jax", "keras", "torch", "onnxruntime", "openvino")

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def environment() -> dict[str, str]:
    """That of the workers: the project's packages are found from anywhere."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path}


class Ours:
    """Stage one as `dvc repro` runs it."""

    def __init__(self, weights: dict[str, Floats], precision: str) -> None:
        """Build and compile."""
        params = load_params()
        base = params.base.model_copy(update={"precision": precision})
        self.params = params.model_copy(update={"base": base})
        self.network = Network(alexnet.build("bvlc", weights, ["fc7"], precision))

    def shown(self, count: int) -> list[Pixels]:
        """Images as stage one shows them to this device."""
        base = FrozenBase(self.params, {})
        images, _ = base.reader(read_index(INDEX))(list(range(count)))
        return [view for (view,) in images]

    def features(self, images: Iterable[Pixels]) -> Floats:
        """As the contestants do it."""
        batches = forward(self.network, ([image] for image in images))
        return np.concatenate([view["fc7"] for (view,) in batches])

    def resident(self) -> float:
        """Images per second of a batch that lies on the device already, its features left there."""
        ops, rows, batches = backend.keras().ops, self.network.batch_rows, 20
        batch = ops.convert_to_tensor(np.zeros((rows, 227, 227, 3), np.uint8))
        backend.fetched(self.network.run(batch)["fc7"])
        start = time.perf_counter()
        for _ in range(batches):
            last = self.network.run(batch)
        backend.fetched(last["fc7"])
        return batches * rows / (time.perf_counter() - start)

    def end_to_end(self) -> tuple[float, dict[str, float]]:
        """Seconds, the network's start left out, as it is for the others; and what they went to."""
        shutil.rmtree("scratch", ignore_errors=True)
        summary = extract(self.params, read_index(INDEX), STORE)
        return summary["seconds"] - summary["time"]["starting"], summary["time"]


def loaded() -> Iterator[Pixels]:
    """What a user's loop does: each image read, decoded and resized, one after the other."""
    source = load_params().prepare.source
    archives = {split: Archive(archive_path(source, split)) for split in ("train", "test")}
    for row in read_index(INDEX).itertuples():
        image = decode(archives[str(row.split)].read(str(row.member)), str(row.member))
        yield resized(cropped(image, (0, 0, image.width - 1, image.height - 1)), 227)


def saved_loop(contestant: Batches | KerasPredict) -> tuple[float, None]:
    """Seconds of reading, computing and saving."""
    start = time.perf_counter()
    np.save("features.npy", contestant.features(loaded()))
    return time.perf_counter() - start, None


def product_rate(dtype: str) -> float:
    """GFLOP/s of the keras backend's product of square matrices, the best of up to ten."""
    ops = backend.keras().ops
    side = 4096 if backend.device() == "cpu" else 16384
    a = ops.cast(np.random.default_rng(0).standard_normal((side, side), np.float32), dtype)
    product = backend.compiled(ops.matmul)
    best, begun = math.inf, time.perf_counter()
    for turn in range(10):
        if turn > 2 and time.perf_counter() - begun > 3:
            break  # such products are slow here: three tell enough
        start = time.perf_counter()
        backend.fetched(ops.cast(product(a, a)[:1, :1], "float32"))
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best / 1e9


def work(name: str) -> None:
    """One tool in a process of its own: a request a line on stdin, an answer a line on stdout."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a tool prints is not an answer
    weights = seeded_weights(alexnet.weight_shapes("bvlc", ["fc7"]))
    tool: Any = Ours(weights, OURS[name]) if name in OURS else CONTESTANTS[name](weights)
    images = list(np.load("pixels.npy", mmap_mode="r"))
    if name in OURS:
        images = tool.shown(len(images))
    for request in sys.stdin:
        answer: Any = None
        match request.strip():
            case "check":
                np.save("checked.npy", tool.features(images[:100]))
            case "network":
                start = time.perf_counter()
                tool.features(images)
                answer = time.perf_counter() - start
            case "end to end":
                with redirect_stdout(sys.stderr):
                    answer = tool.end_to_end() if name in OURS else saved_loop(tool)
            case "resident":
                answer = tool.resident()
            case "device":
                answer = backend.device(), [product_rate(d) for d in ("float32", "bfloat16")]
        answers.write(json.dumps(answer) + "\n")


class Worker:
    """The other end of `work`."""

    def __init__(self, name: str, folder: Path) -> None:
        """Start it in a folder of its own, with the same index, archives and pixels."""
        self.folder = folder / name.replace(", ", "-").replace(" ", "-")
        (self.folder / "data").mkdir(parents=True)
        for file in ("params.yaml", "pixels.npy", str(INDEX)):
            (self.folder / file).symlink_to(folder / file)
        self.log = (self.folder / "log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed", "--work", name],
            cwd=self.folder, env=environment(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
        )  # fmt: skip

    def ask(self, request: str) -> Any:
        """Send a request, wait for the answer."""
        if not (self.process.stdin and self.process.stdout):
            raise TypeError("no pipes")
        try:
            print(request, file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            said = Path(self.log.name).read_text().strip().splitlines() or ["nothing"]
            raise RuntimeError(said[-1]) from None


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=1024, help="in each round; 110 or more")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[*OURS, *CONTESTANTS], metavar="NAME")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work)
        return
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), given.images, given.rounds, given.only)


def compare(folder: Path, images: int, rounds: int, names: list[str]) -> None:
    """All of it, in a folder that is thrown away."""
    make_archives(folder, images)
    write_params(folder, folder)
    prepare = [sys.executable, "-m", "stages.prepare"]
    subprocess.run(prepare, cwd=folder, env=environment(), check=True, stdout=sys.stderr)
    os.chdir(folder)
    pixels = min(images, MAX_PIXELS)
    np.save("pixels.npy", np.stack(list(islice(loaded(), pixels))))
    workers = {}
    expected: Floats | None = None
    for name in names:
        worker = Worker(name, folder)
        try:
            worker.ask("check")
        except RuntimeError as error:
            print(f"{name}: left out: {error}", flush=True)
            continue
        got = np.load(worker.folder / "checked.npy")
        expected = got if expected is None else expected
        distance = float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
        print(f"{name}: differs from the first by {distance:.1e} of its norm", flush=True)
        if distance > (ROUGH if "bfloat16" in name else TOLERANCE):
            sys.exit(f"{name} computes something else")
        worker.ask("network")
        worker.ask("end to end")
        workers[name] = worker
    first = next(iter(workers))
    device, rates = workers[first].ask("device")
    if device != "cpu":  # there, the network's own figure is that
        for name in filter(OURS.__contains__, workers):
            print(f"{name}: {workers[name].ask('resident'):,.0f} images/s of a batch on the device")
    times: dict[tuple[str, str], list[float]] = {}
    parts: dict[str, dict[str, float]] = {}
    for turn in range(rounds):
        for way in ("network", "end to end"):
            order = [*workers][turn % len(workers) :] + [*workers][: turn % len(workers)]
            for name in order:
                answer = workers[name].ask(way)
                if way == "end to end":
                    answer, parts[name] = answer
                times.setdefault((name, way), []).append(answer)
    report(device, rates, times, images, pixels, [*workers])
    for name in filter(OURS.__contains__, workers):
        print(f"{name}, end to end, seconds of the last round: {parts[name]}")


def report(
    device: str,
    rates: list[float],
    times: dict[tuple[str, str], list[float]],
    images: int,
    pixels: int,
    names: list[str],
) -> None:
    """Print the table: medians of images per second, and how often ours each is."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    gflop = 2 * alexnet.multiply_adds("bvlc", ["fc7"]) / 1e9
    print(f"\n{device}, {os.cpu_count()} cores, {platform.machine()}; Python ", end="")
    print(platform.python_version(), *(f"{k} {v}" for k, v in found.items()), sep=", ")
    print(f"matrix products: {rates[0]:,.0f} GFLOP/s in float32, {rates[1]:,.0f} in bfloat16; ")
    print(f"an image takes {gflop:.2f} GFLOP; {images} images a round\n")
    print("| | network, images/s | of the product rate | end to end, images/s | ours is |")
    print("|---|---|---|---|---|")
    for name in names:
        network, whole = (times[name, way] for way in ("network", "end to end"))
        rate = rates["bfloat16" in name]
        speed = pixels / statistics.median(network)
        pairs = zip(whole, times[names[0], "end to end"], strict=True)
        cells = [
            name,
            _spread([pixels / s for s in network]),
            f"{100 * speed * gflop / rate:.0f} %",
            _spread([images / s for s in whole]),
            _spread([theirs / ours for theirs, ours in pairs], 2) + " x",
        ]
        print(f"| {' | '.join(cells)} |")


def _spread(values: list[float], digits: int = 0) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


if __name__ == "__main__":
    main()
