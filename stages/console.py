"""What a run says to the person watching, and how it ends."""

import errno
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from tqdm import tqdm

from cache.errors import DamagedError, StoreError
from cache.remote import transport_faults
from pipeline.errors import InputError

INTERRUPTED = 130  # the shell's status for a process that ^C ended

# What a disk can refuse, and what to do about it.
_DISK = {
    errno.ENOSPC: "make room and run again",
    errno.EDQUOT: "make room and run again",
    errno.EFBIG: "files of this size are not allowed here",
    errno.EROFS: "this must be a folder that can be written to",
    errno.EACCES: "check the permissions of this file or folder",
}

# disable=None: no bar where standard error is no terminal.
bar = partial(tqdm, disable=None, dynamic_ncols=True, leave=False)


def printable(text: str) -> str:
    """Text without what a terminal or a page would obey or hide: control characters and such.

    Names in and of files may hold anything, and bytes that are no UTF-8 cannot even be printed.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(line: str) -> None:
    """Print a line at once, so that DVC's own lines stay in order around it."""
    print(line, flush=True)


def warn(line: str) -> None:
    """Print a line beside a program's answer, to standard error."""
    print(line, file=sys.stderr, flush=True)


def out_of_reach(error: Exception) -> NoReturn:
    """End, as an object store failed a request."""
    reason = printable(" ".join(str(error).split()))
    print(
        f"error: an object store does not answer ({reason}); what it holds is kept: check the "
        "network and the credentials, and run again",
        file=sys.stderr,
    )
    sys.exit(2)


def run(main: Callable[[], Any], go_on: str = "run it again") -> NoReturn:
    """Run a program to its exit status.

    A user's mistake ends with one line and status 2, a damaged store with one and status 1, ^C
    and SIGTERM with one that says how to go on and status 130. Anything else is a bug and keeps
    its traceback.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    # Both: DVC runs stages with SIGINT ignored in some shells, and schedulers send SIGTERM.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        status = main()
    except DamagedError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
    except (InputError, StoreError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # Of a client in use, and of no file; "permission denied" may be a bucket's answer.
        local = error.errno in _DISK.keys() - {errno.EACCES}
        if error.filename is None and not local and transport_faults():
            out_of_reach(error)
        if error.errno not in _DISK:
            raise
        print(
            printable(f"error: {error.filename or 'disk'}: {error.strerror}; {_DISK[error.errno]}"),
            file=sys.stderr,
        )
        sys.exit(2)
    except transport_faults() as error:
        out_of_reach(error)
    except KeyboardInterrupt:
        print(f"stopped: {go_on}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(status)
