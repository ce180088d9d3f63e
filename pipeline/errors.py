"""The one exception a user is meant to read, and those that become it."""

import zipfile
import zlib


class InputError(ValueError):
    """Something given from outside is wrong: what was expected, what was got, what to do."""


# What NumPy raises for an .npz that is none, is damaged, or claims an absurd size.
UNREADABLE_NPZ = (
    OSError, ValueError, TypeError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
