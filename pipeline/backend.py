"""Keras, imported late and quietly, and the device it computes on."""

import os
import platform
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import cv2
import numpy as np
import PIL
from numpy.typing import NDArray

from pipeline.processor import instructions


def chosen() -> str:
    """The library that Keras computes with: "tensorflow", "jax" …; known without importing it."""
    return os.environ.get("KERAS_BACKEND") or "tensorflow"


@cache
def keras() -> Any:
    """The keras module; imported on first use, because that takes seconds.

    TensorFlow's C++ side writes start-up notices straight to the process's standard error, which
    no setting of its own prevents, so the descriptor points elsewhere during the import. If the
    import fails, what was held back is shown.
    """
    # TensorFlow brings a Zstandard of its own, which zarr's compressor would be bound to if it were
    # loaded later: the same features, but other bytes on disk.
    import_module("numcodecs.zstd")
    os.environ["KERAS_BACKEND"] = chosen()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            found = import_module("keras")
            _compute_exactly(found.backend.backend())
            return found
        except BaseException:
            held_back.seek(0)
            os.write(stderr, held_back.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _compute_exactly(backend: str) -> None:
    """Forbid what GPUs do to float32 unless told not to: products of 10-bit mantissas (TF32)."""
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(False)
    elif backend == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")  # type: ignore[no-untyped-call]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors, compiled once for each shape of its arguments.

    On an accelerator a call returns before its result is there; `fetched` waits for it.
    """
    backend = keras().backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function)  # type: ignore[no-any-return]
    if backend == "jax":
        import jax

        return jax.jit(function)
    return function


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors as one loop over memory, for use inside what is `compiled`.

    JAX fuses whatever it compiles. TensorFlow on a CPU does not unless told to, and should not be
    told to for convolutions, at which its own are faster.
    """
    if keras().backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)  # type: ignore[no-any-return]
    return function


def compiled_model(model: Any) -> Callable[[Any], dict[str, Any]]:
    """A Keras model's forward pass, compiled as by `compiled`."""
    if keras().backend.backend() != "jax":
        return compiled(lambda x: model(x, training=False))
    # As arguments, since jit would compile what it closes over into the program.
    values = [variable.value for variable in model.non_trainable_variables]
    step = compiled(lambda values, x: model.stateless_call([], values, x, training=False)[0])
    return lambda x: step(values, x)


def fetched(tensor: Any) -> NDArray[Any]:
    """A tensor's values on the host, once they are computed."""
    return np.asarray(keras().ops.convert_to_numpy(tensor))


def device() -> str:
    """What Keras computes on: "cpu", "gpu: NVIDIA H200" …."""
    backend = keras().backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return f"gpu: {details[0].get('device_name', 'unknown')}" if details else "cpu"
    if backend == "jax":
        import jax

        first = jax.devices()[0]
        return "cpu" if first.platform == "cpu" else f"{first.platform}: {first.device_kind}"
    return str(backend)


def accelerated() -> bool:
    """Whether Keras computes on something else than the CPU; of PyTorch that is not known."""
    return device().partition(":")[0] not in ("cpu", "torch")


def runtime() -> dict[str, str]:
    """What, beside the settings, the floats depend on: software, its versions, the device."""
    backend = keras().backend.backend()
    return {
        "backend": f"{backend} {import_module(backend).__version__}",
        "keras": keras().__version__,
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "machine": platform.machine(),
        "instructions": " ".join(instructions() or []) if device() == "cpu" else "",
        "device": device(),
    }
