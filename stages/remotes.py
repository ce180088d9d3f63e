"""``python -m stages.remotes [NAME]``: what DVC says of its cache and remotes, as JSON.

A program of its own, because clients of object stores ask again and again where nobody answers,
and nothing but the end of their process stops them.
"""

import json
import sys

from dvc.repo import Repo


def settings() -> dict[str, object]:
    """Where the cache is, and which remotes there are."""
    with Repo() as repo:
        return {
            "cache": repo.cache.local.path,
            "default": repo.config["core"].get("remote"),
            "remotes": {name: remote["url"] for name, remote in repo.config["remote"].items()},
        }


def presence(name: str) -> dict[str, bool]:
    """Ask a remote whether anything has been pushed to it."""
    with Repo() as repo:
        remote = repo.cloud.get_remote_odb(name)
        return {"pushed": remote.fs.exists(remote.path)}


if __name__ == "__main__":
    print(json.dumps(presence(sys.argv[1]) if sys.argv[1:] else settings()))
