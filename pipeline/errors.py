"""The one exception a user is meant to read, and those that become it."""

import lzma
import tokenize
import zipfile
import zlib


class InputError(ValueError):
    """Something given from outside is wrong: what was expected, what was got, what to do."""


# What is raised for an .npz that is none, is damaged, or claims an absurd size. One bit can make a
# member encrypted (RuntimeError) or packed by LZMA, and a header no Python (the last two).
UNREADABLE_NPZ = (
    OSError, ValueError, TypeError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile,
    zlib.error, lzma.LZMAError, tokenize.TokenError, SyntaxError,
)  # fmt: skip
