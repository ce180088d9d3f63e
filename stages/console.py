"""What a run says to the person watching, and how it ends."""

import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from tqdm import tqdm

from cache.errors import StoreError
from pipeline.errors import InputError

INTERRUPTED = 130  # the shell's status for a process that ^C ended

# disable=None: no bar where standard error is no terminal.
bar = partial(tqdm, disable=None, dynamic_ncols=True, leave=False)


def say(line: str) -> None:
    """Print a line at once, so that DVC's own lines stay in order around it."""
    print(line, flush=True)


def run(main: Callable[[], Any], go_on: str = "run it again") -> NoReturn:
    """Run a program to its exit status.

    A user's mistake ends with one line and status 2; ^C and SIGTERM with a line that says how to
    go on, and status 130. Anything else is a bug and keeps its traceback.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    # Both: DVC runs stages with SIGINT ignored in some shells, and schedulers send SIGTERM.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        status = main()
    except (InputError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"stopped: {go_on}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(status)
