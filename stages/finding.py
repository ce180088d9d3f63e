"""What ``fc7cache doctor`` says, line by line."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        about: What it is: "lock", "disk" ….
        level: "ok"; "note" for what may be meant; "problem" for what will make a run fail, or
            its numbers differ.
        text: What was found.
        remedy: What to do; empty where there is nothing to do.
    """

    about: str
    level: Literal["ok", "note", "problem"]
    text: str
    remedy: str = ""
