"""Keras, imported late and quietly, and the device it computes on."""

import os
import platform
import sys
import tempfile
from importlib import import_module
from typing import Any

import cv2
import PIL


def keras() -> Any:
    """The keras module; imported on first use, because that takes seconds.

    TensorFlow's C++ side writes start-up notices straight to the process's standard error, which
    no setting of its own prevents, so the descriptor points elsewhere during the import. If the
    import fails, what was held back is shown.
    """
    if "keras" in sys.modules:
        return sys.modules["keras"]
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            return import_module("keras")
        except BaseException:
            held_back.seek(0)
            os.write(stderr, held_back.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


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


def runtime() -> dict[str, str]:
    """What, beside the settings, the floats depend on: software, its versions, the device."""
    backend = keras().backend.backend()
    return {
        "backend": f"{backend} {import_module(backend).__version__}",
        "keras": keras().__version__,
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "machine": platform.machine(),
        "device": device(),
    }
