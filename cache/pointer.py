"""A folder that says where a store is, for stores too large to lie in a workspace.

DVC tracks it in the store's stead: it names the store by its digest, so it changes when the store
does, and it travels with ``dvc push`` though the features do not.
"""

import json
from pathlib import Path

from cache.errors import DamagedError

NAME = "address.json"


def write_pointer(folder: Path, address: str, digest: str) -> None:
    """Make the folder's one file.

    Args:
        folder: Not there yet.
        address: Of a finished store.
        digest: Its own.
    """
    folder.mkdir(parents=True)
    text = json.dumps({"address": address, "digest": digest}, indent=1) + "\n"
    (folder / NAME).write_text(text, encoding="utf-8")


def followed(address: str) -> tuple[str, str | None]:
    """The address that a pointer names and the digest of the store there; else the address itself.

    Raises:
        DamagedError: A pointer that cannot be read.
    """
    path = Path(address) / NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return str(found["address"]), str(found["digest"])
    except OSError:
        return address, None
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{path}: expected the address and digest of a store ({error}); run `dvc checkout`"
        ) from error
