"""Arrays of an ``.npz`` from outside: no size is believed, no bit that has changed is missed."""

import os
import zipfile
from collections.abc import Container
from typing import Any, BinaryIO

import numpy as np


def read_npz(
    file: BinaryIO, wanted: Container[str] | None = None, most_nbytes: int | None = None
) -> dict[str, Any]:
    """Name to array; None for those that are not wanted.

    Args:
        file: Opened, and such that one can seek in it.
        wanted: Names; None for all.
        most_nbytes: What the arrays may unpack to, all together, with their headers. They are not
            read where they say that it is more; and no more is unpacked than they say. None: the
            size of the file, as `numpy.savez` compresses nothing.

    Raises:
        UNREADABLE_NPZ: One of these: it is damaged, too large, or has pickles in it.
    """
    most_nbytes = file.seek(0, os.SEEK_END) if most_nbytes is None else most_nbytes
    with zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        read = {name for name in members if wanted is None or name in wanted}
        if (nbytes := sum(members[name].file_size for name in read)) > most_nbytes:
            raise ValueError(f"arrays of {nbytes:,} bytes; expected at most {most_nbytes:,}")
        return {
            name: _array(archive, info) if name in read else None for name, info in members.items()
        }


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    with archive.open(info) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        # Checksums are compared where a member ends, to which a header that changed may not lead.
        if member.read(1):
            raise ValueError("more bytes than its header announces")
    return array
