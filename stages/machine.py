"""What this machine has to compute with: software, processor, device, memory, disk."""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
from packaging.requirements import Requirement
from packaging.version import Version

from pipeline.processor import instructions
from stages.finding import Finding

LOCK = Path("requirements.lock")
SHOWN = ("numpy", "keras", "tensorflow", "zarr", "scikit-learn", "dvc")
BACKENDS = ("tensorflow", "jax")  # what the base has been tested with
WITH_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
_PROBE = "import json; from pipeline import backend; print(json.dumps(backend.runtime()))"


def software() -> Finding:
    """Versions of what decides about numbers and files."""
    found = [f"{name} {_version(name) or '(not installed)'}" for name in SHOWN]
    system = f"{platform.system()} {platform.machine()}"
    return Finding(
        "software", "ok", f"Python {platform.python_version()}, {', '.join(found)}; {system}"
    )


def lock(path: Path = LOCK) -> Finding:
    """Whether what is installed is what the lock pins, for this Python and system."""
    try:
        wanted = list(pins(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Finding("lock", "note", f"no {path} here: versions are not held against anything")
    unmet = []
    for requirement in wanted:
        version = _version(requirement.name)
        if version is None or not requirement.specifier.contains(
            Version(version), prereleases=True
        ):
            unmet.append(
                f"{requirement.name} {version or 'not installed'}, not {requirement.specifier}"
            )
    if not unmet:
        return Finding("lock", "ok", f"met: {len(wanted)} packages as {path} pins them")
    more = f"; and {len(unmet) - 3} more" if len(unmet) > 3 else ""
    return Finding(
        "lock",
        "problem",
        f"{len(unmet)} of {len(wanted)} packages are not as {path} pins them: "
        f"{'; '.join(unmet[:3])}{more}",
        f"pip install --require-hashes -r {path}; other versions may round otherwise",
    )


def pins(text: str) -> Iterator[Requirement]:
    """The requirements of a lock that hold for this Python and system."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        stated = re.sub(r"\s--hash=\S+", "", line).strip()
        if stated and not stated.startswith(("#", "-")):
            requirement = Requirement(stated)
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement


def backend(environ: Mapping[str, str] = os.environ) -> Finding:
    """What Keras computes with, and on; found out in a process of its own, which may crash."""
    name = environ.get("KERAS_BACKEND", "tensorflow")
    unset = "unset KERAS_BACKEND, for TensorFlow"
    if name not in BACKENDS:
        return Finding(
            "backend",
            "problem",
            f"KERAS_BACKEND is {name!r}; expected {' or '.join(BACKENDS)}",
            unset,
        )
    said = answer([sys.executable, "-c", _PROBE], timeout_s=120)
    if isinstance(said, str):
        remedy = unset if name != "tensorflow" else f"pip install --require-hashes -r {LOCK}"
        return Finding("backend", "problem", f"Keras cannot start on {name}: {said}", remedy)
    text = f"{said['backend']} on {said['device']}, through Keras {said['keras']}"
    if name != "tensorflow":
        return Finding(
            "backend", "note", f"{text}: its features differ from TensorFlow's by rounding"
        )
    return Finding("backend", "ok", text)


def processor(precision: str | None, cpuinfo: Path = Path("/proc/cpuinfo")) -> Finding:
    """Cores, and the instructions by which features of two machines come to differ.

    Args:
        precision: ``base.precision``, if known.
        cpuinfo: Linux's description of the processor.
    """
    cores = f"{joblib.cpu_count()} cores"
    if (has := instructions(cpuinfo)) is None:
        return Finding("processor", "ok", f"{cores}; this system does not list its instructions")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    name = re.search(r"^model name\s*: *(.+?) *$", text, re.MULTILINE)
    described = ", ".join([*([name[1]] if name else []), cores, " ".join(has)])
    if platform.machine() in ("x86_64", "AMD64") and "avx" not in has:
        return Finding(
            "processor", "problem", f"{described}: no AVX, which TensorFlow's packages need",
            "compute elsewhere; `dvc pull` brings the features here",
        )  # fmt: skip
    if precision == "bfloat16" and WITH_BFLOAT16.isdisjoint(has):
        return Finding(
            "processor", "note", f"{described}: no bfloat16, so it is slower than float32 here"
        )
    return Finding("processor", "ok", described)


def memory(need_nbytes: int | None) -> Finding:
    """Whether two shards, one being filled and one being written, fit in memory.

    Args:
        need_nbytes: What they take; None if that is not known.
    """
    if not hasattr(os, "sysconf"):
        return Finding("memory", "note", "this system does not say how much there is")
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need_nbytes is None:
        return Finding("memory", "ok", f"{has / 1e9:.1f} GB")
    text = f"{has / 1e9:.1f} GB; extract holds two shards, {need_nbytes / 1e6:,.1f} MB"
    if need_nbytes > has:
        return Finding("memory", "problem", text, "set store.shard_rows lower")
    return Finding("memory", "ok", text)


def disk(folders: Mapping[str, Path], needs_nbytes: Mapping[str, int]) -> list[Finding]:
    """Room where scratch and DVC's cache lie; a finding for each file system.

    The store is written to scratch and copied to the cache once; ``data`` has links to one of
    them, where it is on the same file system.

    Args:
        folders: What lies there, to where; folders that are not there yet count as their parent.
        needs_nbytes: What lies there, to how much of the store will, uncompressed.
    """
    places: dict[int, tuple[Path, list[str]]] = {}
    for what, folder in folders.items():
        there = folder.absolute()
        while not there.exists():
            there = there.parent
        places.setdefault(there.stat().st_dev, (there, []))[1].append(what)
    findings = []
    for there, contents in places.values():
        free = shutil.disk_usage(there).free
        text = f"{free / 1e9:.1f} GB free for {', '.join(contents)}"
        copied = [what for what in contents if what != "data"] or contents
        need = sum(needs_nbytes[what] for what in copied)
        taken = f"; the features take {need / 1e6:,.0f} MB" if need else ""
        if free < need:
            findings.append(
                Finding(
                    "disk",
                    "problem",
                    f"{text} ({there}){taken}",
                    "make room (`fc7cache prune`), set FC7CACHE_SCRATCH or `dvc cache dir` "
                    "elsewhere, or set store.dtype to float16",
                )
            )
        else:
            findings.append(Finding("disk", "ok", text + taken))
    return findings


def answer(command: Sequence[str], timeout_s: float) -> dict[str, Any] | str:
    """The JSON object that a program prints, or, as text, why there is none."""
    try:
        done = subprocess.run(  # noqa: S603 (our own commands)
            command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout_s:g} s"
    if done.returncode < 0:
        return f"the process died of signal {-done.returncode}"
    if done.returncode:
        return " ".join((done.stderr.strip().splitlines() or ["no reason given"])[-1].split())[:300]
    last = (done.stdout.strip().splitlines() or ["nothing"])[-1]
    try:
        found = json.loads(last)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else f"expected an answer in JSON, got {last[:300]}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
