"""The vendored networks: checked against their digest, loaded once per process, run on the CPU.

The files and their provenance are in `raytrace_face/assets/networks` (`networks.md`). They are LiteRT flatbuffers;
`face_landmarker.task` is an uncompressed zip of three of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrace_face.errors import ModelError

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "networks"
"""Where the network files lie."""

MEMBERS = {
    "detector": ("face_landmarker.task", "face_detector.tflite"),
    "landmarks": ("face_landmarker.task", "face_landmarks_detector.tflite"),
    "blendshapes": ("face_landmarker.task", "face_blendshapes.tflite"),
    "segmentation": ("selfie_multiclass_256x256.tflite", None),
}
"""Network name -> (file, member of the zip or None)."""

_lock = threading.RLock()


def read_verified(name: str, folder: Path | None = None) -> bytes:
    """Bytes of a vendored file, after comparing its sha256 with `networks.json`.

    Raises ModelError when the file is missing, unlisted or not the file that was vendored.
    """
    folder = FOLDER if folder is None else folder
    try:
        digests = json.loads((folder / "networks.json").read_text("utf-8"))
        data = (folder / name).read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"network file {folder / name} cannot be read ({type(error).__name__}); reinstall raytrace-face"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    expected = digests.get(name, {}).get("sha256")
    if found != expected:
        raise ModelError(
            f"network file {folder / name} is damaged: its sha256 is {found[:12]}, "
            f"{str(expected)[:12]} was expected; reinstall raytrace-face"
        )
    return data


@contextlib.contextmanager
def _quiet_native_stderr() -> Iterator[None]:
    """Silence the line that the LiteRT runtime writes to file descriptor 2 when it starts (no option for it)."""
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except (OSError, AttributeError, ValueError):  # no standard error at all: nothing to silence
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


class Network:
    """One network: float32 arrays in, float32 arrays out, in the order of its outputs."""

    def __init__(self, flatbuffer: bytes, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with _quiet_native_stderr():
            self._interpreter: Any = Interpreter(model_content=flatbuffer, num_threads=threads)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = self._interpreter.get_output_details()
        self._lock = threading.Lock()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the one input, batch first."""
        return tuple(int(n) for n in self._input["shape"])

    def __call__(self, array: NDArray[np.floating]) -> list[NDArray[np.float32]]:
        """Run on one input of `input_shape` (the batch axis may be left out)."""
        value = np.ascontiguousarray(array, dtype=np.float32).reshape(self.input_shape)
        with self._lock:
            self._interpreter.set_tensor(self._input["index"], value)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(output["index"]).copy() for output in self._outputs]


@lru_cache(maxsize=8)
def _load(name: str, threads: int) -> Network:
    file, member = MEMBERS[name]
    data = read_verified(file)
    if member is not None:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data = archive.read(member)
    return Network(data, threads)


def network(name: str, threads: int = 2) -> Network:
    """The network `name` (a key of `MEMBERS`), loaded on first use and kept for the life of the process.

    Results do not depend on the run; the last bits may depend on `threads`. Raises ModelError when the file is
    missing or damaged.
    """
    with _lock:
        return _load(name, threads)


@lru_cache(maxsize=1)
def tables() -> dict[str, Any]:
    """Facts about the networks: landmark mirror permutation, blendshape names and their input landmarks."""
    return json.loads(read_verified("landmarks.json").decode("utf-8"))
