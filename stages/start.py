"""Where a fine-tuned head starts from."""

from pipeline.alexnet import weight_shapes
from pipeline.errors import InputError
from pipeline.gradient import FineTunedHead
from pipeline.head import Head
from pipeline.scaling import Floats
from pipeline.weights import load_first_weights
from stages.candidates import Candidates
from stages.console import warn
from stages.params import Params


def give_start(params: Params, name: str, candidates: Candidates) -> None:
    """Set the first weights of heads that go on from the base's own.

    Raises:
        InputError: Features other than pool5; weights without fc6 and fc7.
    """
    started: dict[str, list[tuple[Floats, Floats]]] = {}
    for head in candidates.heads:
        if isinstance(head, FineTunedHead):
            if candidates.layers != ["pool5"]:
                raise InputError(
                    f"params.yaml: heads.{name}.features: AlexNet's fc6 expects pool5, got "
                    f"{', '.join(candidates.layers)}; set it to pool5, and cache it"
                )
            if head.start not in started:
                started[head.start] = _fully_connected(params, head.start)
            head.start_ = started[head.start]


def stands_in(params: Params, head: Head) -> bool:
    """Whether it is fine-tuned from random stand-ins for AlexNet's own layers."""
    return isinstance(head, FineTunedHead) and (head.start == "seeded" or params.base.seeded)


def _fully_connected(params: Params, start: str) -> list[tuple[Floats, Floats]]:
    base = params.base
    shapes = weight_shapes(base.variant, ["fc7"])
    wanted = {name: shape for name, shape in shapes.items() if name.startswith("fc")}
    sources = base.sources if start == "base" else [("seeded", None)]
    arrays = load_first_weights(sources, wanted, warn)
    return [(arrays[f"{layer}_W"], arrays[f"{layer}_b"]) for layer in ("fc6", "fc7")]
