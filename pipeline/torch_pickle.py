"""The pickle in a PyTorch file, read as data: no function is looked up, none is called.

`pickletools` splits a pickle into its operations; the few that a ``state_dict`` is written with
are done here, on a stack of plain values, as the pickle's own description says. Where a pickle
would call one of PyTorch's functions, a record of what it describes is made instead. Whatever
else a pickle can ask for is refused.
"""

import pickletools
from typing import Any, BinaryIO, NamedTuple

_TYPES = {"torch FloatStorage": "<f4", "torch DoubleStorage": "<f8", "torch HalfStorage": "<f2"}

_MOST_AXES = 8


class Storage(NamedTuple):
    """Numbers that lie elsewhere in the file."""

    key: str
    dtype: str  # as NumPy spells it
    size: int  # how many


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Global(NamedTuple):
    """A function or class that the pickle names, by "module name"."""

    name: str


def read_pickle(file: BinaryIO) -> Any:
    """The next pickle of a file, which is left behind it.

    Returns:
        What was pickled, of None, bool, int, str, tuple, list, dict with str as keys, Tensor.

    Raises:
        ValueError: No pickle, or one that asks for more than a ``state_dict`` needs.
    """
    stack: list[Any] = []
    below: list[list[Any]] = []  # what lay under each mark
    memo: dict[Any, Any] = {}
    try:
        for operation, given, _ in pickletools.genops(file):
            match operation.name:
                case "PROTO" | "FRAME":
                    pass
                case "STOP":
                    return stack.pop()
                case "MARK":
                    below.append(stack)
                    stack = []
                case "NONE":
                    stack.append(None)
                case "NEWTRUE" | "NEWFALSE":
                    stack.append(operation.name == "NEWTRUE")
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE" | "SHORT_BINUNICODE":
                    stack.append(given)
                case "EMPTY_TUPLE":
                    stack.append(())
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_DICT":
                    stack.append({})
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    size = int(operation.name[-1])
                    stack[-size:] = [tuple(stack[-size:])]
                case "TUPLE":
                    items, stack = stack, below.pop()
                    stack.append(tuple(items))
                case "APPEND":
                    item = stack.pop()
                    stack[-1].append(item)
                case "APPENDS":
                    items, stack = stack, below.pop()
                    stack[-1].extend(items)
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    _set(stack[-1], [key], [value])
                case "SETITEMS":
                    items, stack = stack, below.pop()
                    _set(stack[-1], items[::2], items[1::2])
                case "BINPUT" | "LONG_BINPUT":
                    memo[given] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[given])
                case "GLOBAL":
                    stack.append(_Global(str(given)))
                case "STACK_GLOBAL":
                    name, module = stack.pop(), stack.pop()
                    stack.append(_Global(" ".join((module, name))))
                case "BINPERSID":
                    stack[-1] = _storage(stack[-1])
                case "REDUCE":
                    arguments = stack.pop()
                    stack[-1] = _called(stack[-1], arguments)
                case "BUILD":
                    stack.pop()  # notes beside an OrderedDict
                case other:
                    raise ValueError(f"an operation {other} in its pickle")
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a pickle that makes no sense ({error!r})") from error
    raise ValueError("a pickle without end")


def _set(target: dict[str, Any], keys: list[Any], values: list[Any]) -> None:
    for key, value in zip(keys, values, strict=True):
        if not isinstance(key, str):
            raise ValueError(f"a key that is no text but {type(key).__name__}")
        target[key] = value


def _storage(mark: Any) -> Storage:
    match mark:
        case (
            ("storage", _Global(name), str(key), str(), int(size))
            | ("storage", _Global(name), str(key), str(), int(size), None)
        ) if name in _TYPES:  # fmt: skip
            return Storage(key, _TYPES[name], size)
        case ("storage", _Global(name), *_):
            raise ValueError(f"numbers kept as {name[:100]!r}; expected {', '.join(_TYPES)}")
    raise ValueError("a pickle that refers to something else than numbers")


def _called(function: Any, arguments: Any) -> Any:
    """What the call would have made."""
    match function, arguments:
        case _Global("collections OrderedDict"), ():
            return {}
        case (
            _Global("torch._utils _rebuild_tensor_v2"),
            (Storage() as storage, int(offset), tuple(shape), tuple(strides), bool(), dict()),
        ):
            if len(shape) > _MOST_AXES or not all(isinstance(k, int) for k in (*shape, *strides)):
                raise ValueError(f"a tensor without a shape of at most {_MOST_AXES} whole numbers")
            return Tensor(storage, offset, shape, strides)
        case _Global("torch._utils _rebuild_parameter"), (Tensor() as tensor, bool(), dict()):
            return tensor
        case _Global(name), _:
            raise ValueError(f"a pickle that wants to call {name[:100]!r}")
    raise ValueError("a pickle that calls what it made itself")
