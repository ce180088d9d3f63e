"""The processor's instructions, by which floats of two machines come to differ."""

import re
from pathlib import Path

# Of a processor's many, those by which TensorFlow and JAX choose their arithmetic.
KNOWN = (
    "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16",
    "asimd", "sve", "bf16",
)  # fmt: skip


def instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str] | None:
    """Those of `KNOWN` that this processor has; None where the system does not list them.

    Args:
        cpuinfo: Linux's description of the processor.
    """
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    if not lines:
        return None
    has = {flag for line in lines for flag in line.split()}
    return [name for name in KNOWN if name in has]
