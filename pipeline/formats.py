"""How the report writes its numbers: each a value to text."""

import math
from collections.abc import Callable
from typing import Any

NO_VALUE = "–"
NARROW_SPACE = "\u202f"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(share: float | None, digits: int = 2) -> str:
    """A share 0..1 in per cent; a dash for none."""
    return NO_VALUE if share is None else f"{100 * share:.{digits}f}{NARROW_SPACE}%"


def number(value: float) -> str:
    """Six digits; outside of 0.0001 to 999,999 as a power of ten."""
    if not math.isfinite(value):
        return "∞" if value == math.inf else NO_VALUE
    short = f"{value:.6g}"
    if "e" not in short:
        return short
    factor, _, exponent = short.partition("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    return power if factor == "1" else f"{factor}{NARROW_SPACE}×{NARROW_SPACE}{power}"


def plain(value: object) -> str:
    """A setting's value as a person writes it."""
    if value is None:
        return NO_VALUE
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return str(value)


def shorten(text: str, length: int) -> str:
    """At most so many letters, the last an ellipsis if any are lost."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def points(difference: float) -> str:
    """A difference of two shares, in percentage points with its sign."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds, or minutes, or hours."""
    if seconds < 59.95:
        return f"{seconds:.{1 if seconds >= 1 else 2}f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def p_value(p: float) -> str:
    """A p-value behind its sign of relation: three digits, or as a power of ten."""
    if not math.isfinite(p):
        return f"=\u00a0{NO_VALUE}"
    if p == 0:  # smaller than a float holds
        return f"<\u00a0{number(1e-300)}"
    return "=\u00a0" + (f"{p:.3f}" if p >= 0.001 else number(float(f"{p:.1e}")))


def shade(share: float) -> float:
    """Opacity of a matrix's cell."""
    # The square root keeps a share of 1 % visible next to one of 100 %, the offset a single image.
    return round(0.14 + 0.86 * math.sqrt(share), 2)


def throughput(found: dict[str, object]) -> list[tuple[str, str]]:
    """Terms and descriptions of the base's pass, of what is known."""
    formats: dict[str, tuple[str, Callable[[Any], str]]] = {
        "rows": ("Images", "{:,}".format),
        "forwarded": ("Forwarded in the last pass", "{:,}".format),
        "seconds": ("Time", duration),
        "images_per_second": ("Images a second", "{:,.1f}".format),
        "device": ("Device", str),
    }
    return [
        (term, write(found[key]))
        for key, (term, write) in formats.items()
        if found.get(key) is not None
    ]


def time_spent(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Terms and descriptions of what the base's pass spent its time on, if that is known."""
    parts = found.get("time") or {}
    terms = {
        "starting": "Starting",
        "network": "Network",
        "waiting_for_images": "Waiting for images",
        "copying_and_waiting_for_store": "Copying rows, waiting for the store",
        "rest": "Planning, checking, publishing",
    }
    beside = {
        "readers_reading": "Reading, beside it",
        "readers_decoding": "Decoding, beside it",
        "writer_writing": "Writing, beside it",
    }
    seconds = sum(parts[key] for key in terms if key in parts)
    if not seconds:
        return []
    return [
        *((terms[key], percent(parts[key] / seconds, 1)) for key in terms if key in parts),
        *((beside[key], duration(parts[key])) for key in beside if key in parts),
    ]


FILTERS: dict[str, Callable[..., object]] = {
    "percent": percent,
    "number": number,
    "plain": plain,
    "shorten": shorten,
    "points": points,
    "duration": duration,
    "p_value": p_value,
    "shade": shade,
    "px": lambda value: f"{round(value, 1):g}",
}
