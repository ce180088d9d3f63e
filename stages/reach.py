"""Whether what a run would read or fetch is there: images, weights, object stores, remotes."""

import socket
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pooch
import requests

from cache.errors import StoreError
from cache.remote import filesystem_of, is_local, transport_faults
from pipeline.archives import NAMES, archive_path
from pipeline.errors import InputError
from pipeline.fetch import local_path
from pipeline.folder import Folder, own_root
from pipeline.listing import list_csv, list_folder
from pipeline.own import numbered
from pipeline.weights import weights_path
from stages.finding import Finding
from stages.machine import answer
from stages.params import Base, Prepare
from stages.workers import VARIABLE, asked_for

HASHED_NBYTES = 1 << 30  # files up to this size are hashed, which takes a second or two
_TIMEOUT_S = 5
_REMOTE_TIMEOUT_S = 30

T = TypeVar("T")


def sources(settings: Prepare) -> tuple[list[Finding], int | None]:
    """The three archives, or images of one's own.

    Returns:
        What was found; and how many images of one's own are listed, None where the listing is at
        fault or the archives are meant.
    """
    try:
        root, source = own_root(settings.source), local_path(settings.source)
        if root is None or source is None:
            return _archives(settings), None
        # As `prepare` does, but that no image is opened.
        listed = list_csv(source) if source.is_file() else list_folder(source)
        numbered(listed, str(source), settings.test_fraction)
        folder = Folder(root)
        for image in listed:
            folder.find(image.member)
    except (InputError, OSError) as error:
        return [Finding("images", "problem", str(error), "correct it, or prepare.source")], None
    text = f"{source}: {len(listed):,} of your own; `prepare` reads and checks them"
    return [Finding("images", "ok", text)], len(listed)


def _archives(settings: Prepare) -> list[Finding]:
    """The three archives: on disk and right, or offered at their address."""

    def look(part: str) -> Finding:
        path, md5 = archive_path(settings.source, part), getattr(settings.md5, part)
        remedy = (
            f"put it in {path.parent}, or set prepare.source; to try without the data: make demo"
        )
        if path.is_file() or local_path(settings.source) is not None:
            return _file("archive", path, "md5", md5, remedy)
        return _offer("archive", f"{settings.source.rstrip('/')}/{NAMES[part]}", remedy)

    with ThreadPoolExecutor(len(NAMES)) as pool:
        return list(pool.map(look, NAMES))


def scratch(address: str) -> Finding | None:
    """Whether scratch that lies in an object store answers; None where it lies on this machine."""

    def on_this_machine() -> bool:
        if is_local(address):
            return True
        filesystem, path = filesystem_of(address)
        with suppress(FileNotFoundError):  # nothing lies there yet
            filesystem.ls(path)
        return False

    remedy = "check the address, the network, credentials, or set FC7CACHE_SCRATCH to a folder"
    answered = reached("scratch", address, on_this_machine, remedy)
    if isinstance(answered, Finding):
        return answered
    return None if answered else Finding("scratch", "ok", f"{address}: answers")


def base_weights(base: Base, needed: bool) -> list[Finding]:
    """The weights: seeded, on disk and right, or offered at an address; one of several will do.

    Args:
        base: Where they are to come from.
        needed: Whether a run would read them; else nothing about them is a problem.
    """
    if base.seeded:
        seeded = "seeded stand-ins: figures say nothing of the real network"
        return [Finding("weights", "note", seeded)]
    found = [_one_of_weights(location, sha256) for location, sha256 in base.sources]
    needed = needed and all(finding.level == "problem" for finding in found)
    return [weighed(finding, needed) for finding in found]


def _one_of_weights(location: str, sha256: str | None) -> Finding:
    try:
        path = weights_path(location, sha256)
    except InputError as error:
        remedy = "put it there, or correct base.weights; to try without it: make demo"
        return Finding("weights", "problem", str(error), remedy)
    remedy = f"put it at {path}, or set base.weights; to try without it: make demo"
    if path.is_file():
        return _file("weights", path, "sha256", sha256, remedy)
    return _offer("weights", location, remedy)


def workers() -> Finding:
    """Who would do the work, and whether a scheduler listens."""
    try:
        where = asked_for()
    except InputError as error:
        return Finding("workers", "problem", str(error), "unset it, or set it right")
    if where.isdigit():
        return Finding("workers", "ok", f"{where} processes" if where != "1" else "this process")
    there = urlsplit(where)
    try:
        with socket.create_connection((there.hostname or "", there.port or 0), _TIMEOUT_S):
            return Finding("workers", "ok", f"those of the Dask scheduler at {where}")
    except (OSError, ValueError) as error:
        return Finding(
            "workers", "problem", f"no scheduler listens at {where} ({error})",
            f"start one with `dask scheduler`, or unset {VARIABLE}",
        )  # fmt: skip


def remotes(settings: Mapping[str, Any], needed: bool) -> list[Finding]:
    """Whether each of DVC's remotes answers.

    Args:
        settings: As `stages.remotes` prints them.
        needed: Whether results are to come from a remote: they are in dvc.lock, but not here.
    """
    names = settings["remotes"]
    if not names:
        return [
            Finding(
                "remote",
                "note",
                "none: results stay on this machine, and none come from another",
                "dvc remote add -d NAME ADDRESS",
            )
        ]

    def look(name: str) -> Finding:
        what = f"{name}, {names[name]}"
        said = answer([sys.executable, "-m", "stages.remotes", name], timeout_s=_REMOTE_TIMEOUT_S)
        if isinstance(said, str):
            return Finding(
                "remote", "problem", f"{what}: {said}",
                "check the address (`dvc remote list`), the network, credentials",
            )  # fmt: skip
        if said["pushed"]:
            return Finding("remote", "ok", f"{what}: reached, and holds results")
        return Finding(
            "remote", "problem" if needed else "note", f"{what}: nothing has been pushed there",
            "`dvc push`, where the results are; if that was done: is it mounted, and the address "
            "right?",
        )  # fmt: skip

    with ThreadPoolExecutor(len(names)) as pool:
        found = list(pool.map(look, names))
    if settings["default"] not in names:
        found.append(
            Finding("remote", "note", "none is the default", "dvc remote default NAME, or -r NAME")
        )
    return found


def reached(about: str, address: str, ask: Callable[[], T], remedy: str) -> T | Finding:
    """What an object store answers, or else a finding that it does not, or not in time.

    Args:
        about: What is asked for, for the finding.
        address: Of whom.
        ask: Asks.
        remedy: What to do if there is no answer.
    """
    answered = _asked(ask)
    if not wait([answered], _REMOTE_TIMEOUT_S).done:
        return Finding(
            about, "problem", f"{address}: no answer within {_REMOTE_TIMEOUT_S} s", remedy
        )
    try:
        return answered.result()
    except _faults() as error:  # only now are the clients known that were loaded for it
        reason = " ".join(str(error).split())
        return Finding(about, "problem", f"{address}: cannot be reached ({reason})", remedy)


def _asked(ask: Callable[[], T]) -> Future[T]:
    """What it will answer; asked in a thread that, unlike a pool's, is left behind at the end."""
    future: Future[T] = Future()

    def settle() -> None:
        try:
            future.set_result(ask())
        except BaseException as error:  # whoever waits is to see it
            future.set_exception(error)

    Thread(target=settle, daemon=True).start()
    return future


def _faults() -> tuple[type[Exception], ...]:
    return StoreError, OSError, *transport_faults()


def weighed(finding: Finding, needed: bool) -> Finding:
    """The finding, which is no problem where a run would not need what it is about."""
    if finding.level == "problem" and not needed:
        return replace(finding, level="note", text=f"{finding.text}; not needed now", remedy="")
    return finding


def _file(about: str, path: Path, kind: str, wanted: str | None, remedy: str) -> Finding:
    if not path.is_file():
        return Finding(about, "problem", f"{path}: no such file", remedy)
    if wanted is None or path.stat().st_size > HASHED_NBYTES:
        return Finding(about, "ok", f"{path}: there; its {kind} was not checked")
    got = pooch.file_hash(str(path), alg=kind)
    if got != wanted:
        text = f"{path}: expected {kind} {wanted}, got {got}"
        return Finding(about, "problem", text, f"fetch the file anew, or set {kind} in params.yaml")
    return Finding(about, "ok", f"{path}: there, {kind} right")


def _offer(about: str, address: str, remedy: str) -> Finding:
    if not address.startswith(("http://", "https://")):
        return _kept(about, address, remedy)
    try:
        # Not HEAD, which some servers refuse; nothing is read of what is offered.
        with requests.get(address, stream=True, timeout=_TIMEOUT_S) as response:
            response.raise_for_status()
    except requests.HTTPError as error:
        return Finding(about, "problem", str(error), remedy)
    except requests.Timeout:
        return Finding(about, "problem", f"{address}: no answer within {_TIMEOUT_S} s", remedy)
    except requests.ConnectionError:
        return Finding(about, "problem", f"{address}: cannot be reached from here", remedy)
    except (requests.RequestException, ValueError) as error:
        return Finding(about, "problem", f"{address}: {error}", remedy)
    return Finding(about, "ok", f"{address}: offered; checked when it is fetched")


def _kept(about: str, address: str, remedy: str) -> Finding:
    """A file of an object store."""

    def there() -> bool:
        filesystem, path = filesystem_of(address)
        return bool(filesystem.exists(path))

    answered = reached(about, address, there, remedy)
    if isinstance(answered, Finding):
        return answered
    if not answered:
        return Finding(about, "problem", f"{address}: no such object", remedy)
    return Finding(about, "ok", f"{address}: offered; checked when it is fetched")
