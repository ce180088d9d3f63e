"""Where the network's time goes: each layer by itself, the best of seven, a batch of stage one's.

    python -m benchmarks.layers [--precision bfloat16] [--variant torchvision]

The rate is to be held against that of a plain matrix product, which is printed last.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.speed import product_rate
from pipeline import alexnet, backend
from pipeline.features import Network
from pipeline.weights import seeded_weights


def best_ms(function: Callable[[Any], Any], x: Any) -> float:
    """Milliseconds of a compiled call whose result is there."""
    run, times = backend.compiled(function), []
    for _ in range(8):
        start = time.perf_counter()
        backend.fetched(backend.keras().ops.ravel(run(x))[:1])
        times.append(time.perf_counter() - start)
    return 1e3 * min(times[1:])


def main() -> None:
    """Print a line for each layer."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--variant", choices=list(alexnet.VARIANTS), default="bvlc")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    given = parser.parse_args()
    weights = seeded_weights(alexnet.weight_shapes(given.variant, ["fc7"]))
    model = alexnet.build(given.variant, weights, ["fc7"], given.precision)
    rows = Network(model).batch_rows
    shape = (rows, *model.input_shape[1:])
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    whole = best_ms(lambda x: model(x)["fc7"], pixels)
    x, before = backend.keras().ops.convert_to_tensor(pixels), 0
    print(f"| layer | ms a batch of {rows} | share | GFLOP/s |\n|---|---|---|---|")
    for layer in model.layers[1:]:
        spent, rate = best_ms(layer, x), ""
        if f"{layer.name}_W" in weights:
            until = alexnet.multiply_adds(given.variant, [layer.name])
            rate = f"{2 * (until - before) * rows / spent / 1e6:,.0f}"
            before = until
        print(f"| {layer.name} | {spent:.1f} | {100 * spent / whole:.1f} % | {rate} |")
        x = layer(x)
    total = 2 * before * rows / whole / 1e6
    print(f"| all, compiled together | {whole:.1f} | | {total:,.0f} |")
    print(f"| a matrix product | | | {product_rate(given.precision):,.0f} |")


if __name__ == "__main__":
    main()
