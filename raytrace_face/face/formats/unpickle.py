"""Pickles of face models, read without running them.

`opcodes` gives notes of what the file wants built. Notes of arrays become arrays by `np.frombuffer`, after their shapes
have been held against the bytes that are there; nothing else becomes anything.
"""

from __future__ import annotations

import math
import re
import reprlib
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from raytrace_face.errors import ModelError
from raytrace_face.face.formats.opcodes import CLASSES, Name, Note, RefusedError, notes, said

MAX_BYTES = 1_000_000_000
"""Largest file that is read. FLAME's are 50 to 200 MB (text protocol)."""
NUMBERS = re.compile(r"b1|[iuf][248]|[iu]1")
"""Types of arrays: no objects, strings or records."""


def read_pickle(path: str | Path) -> dict[str, Any]:
    """Top level of a pickled dict: its arrays, scipy sparse matrices, strings and numbers.

    Protocols 0 to 4, as Python 2 (text as latin-1) or 3 wrote them. A chumpy `Ch` gives the array it wraps. Entries
    that are lists, tuples, dicts or sets are left out: no model needs them.

    Raises:
        ModelError: a name or opcode that no model needs, an array that is none of numbers or claims more bytes than
            there are, or a damaged file.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path} has more than {MAX_BYTES / 1e9:.0f} GB: no face model in a pickle is that large")
        data = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Python says of unknown escapes in a text no more than that
            tree = notes(data)
        if not isinstance(tree, dict):
            raise RefusedError("holds no dictionary of arrays")
        built = _Builder(len(data))
        return {key: built(value) for key, value in tree.items() if _wanted(value)}
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error}): give the model's own file") from error
    except RefusedError as error:
        raise ModelError(f"{path} {error}; nothing of it was run. Take the file from its publisher again") from error
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error, Warning) as error:
        raise ModelError(
            f"{path} is damaged as a pickle ({said(error)}): take the file from its publisher again"
        ) from error


def _sizes(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape):
        raise RefusedError(f"holds an array of shape {reprlib.repr(shape)}")
    return shape


def _wanted(value: Any) -> bool:
    return not (
        isinstance(value, (list, tuple, dict, Name)) or (isinstance(value, Note) and value.role in ("set", "bytes"))
    )


class _Builder:
    """Turns notes into arrays; every note once, and all together no more bytes than the file has."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.done: dict[int, Any] = {}

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, Note):
            return value
        if id(value) not in self.done:
            makers = {"array": self._array, "scalar": self._scalar, "chumpy": self._chumpy}
            self.done[id(value)] = makers.get(value.role, self._sparse)(value)
        return self.done[id(value)]

    def _numbers(self, dtype: Any, shape: Any, raw: Any) -> NDArray:
        kind = self._dtype(dtype)
        claimed = math.prod(_sizes(shape)) * kind.itemsize
        if isinstance(raw, Note) and raw.role == "bytes":
            raw = raw.arguments[0]
        if not isinstance(raw, (str, bytes)):
            raise RefusedError("holds an array without the bytes of its numbers")
        if claimed != len(raw) or claimed > self.left:
            left = min(len(raw), self.left)
            raise RefusedError(f"holds an array {shape} that claims {claimed} bytes where there are {left}")
        self.left -= claimed
        return np.frombuffer(raw.encode("latin-1") if isinstance(raw, str) else raw, kind)

    @staticmethod
    def _dtype(note: Any) -> np.dtype:
        name = note.arguments[0] if isinstance(note, Note) and note.role == "dtype" and note.arguments else note
        order = note.state[1] if isinstance(note, Note) and isinstance(note.state, tuple) else "?"
        if not isinstance(name, str) or not NUMBERS.fullmatch(name) or order not in ("<", ">", "|", "="):
            raise RefusedError(f"holds an array of dtype {reprlib.repr(name)}, not of numbers")
        return np.dtype(order + name)

    def _array(self, note: Note) -> NDArray:
        if not isinstance(note.state, tuple) or len(note.state) != 5:
            raise RefusedError("holds an array without its content")
        _, shape, dtype, columns_first, raw = note.state
        return self._numbers(dtype, shape, raw).reshape(shape, order="F" if columns_first else "C")

    def _scalar(self, note: Note) -> Any:
        dtype, raw = note.arguments
        return self._numbers(dtype, (), raw)[0].item()

    def _chumpy(self, note: Note) -> Any:
        wrapped = note.state.get("x") if isinstance(note.state, dict) else None
        if not isinstance(wrapped, Note) or wrapped.role != "array":
            raise RefusedError("holds a chumpy object that wraps no array")
        return self(wrapped)

    def _sparse(self, note: Note) -> Any:
        state = note.state if isinstance(note.state, dict) else {}
        parts = [state.get(key) for key in ("data", "indices", "indptr")]
        shape = state.get("_shape", state.get("shape"))
        if note.role not in CLASSES or not all(isinstance(p, Note) and p.role == "array" for p in parts):
            raise RefusedError(f"holds a {note.role} without its content")
        values, inner, starts = (self(p) for p in parts)
        shape = _sizes(shape)
        if len(shape) != 2 or 8 * math.prod(shape) > MAX_BYTES:
            raise RefusedError(f"holds a {note.role} of shape {reprlib.repr(shape)}")
        outer, width = shape if note.role == "csr_matrix" else shape[::-1]
        whole = inner.dtype.kind in "iu" and starts.dtype.kind in "iu" and values.ndim == inner.ndim == starts.ndim == 1
        if not whole or len(starts) != outer + 1 or len(values) != len(inner) or starts[0] or starts[-1] != len(inner):
            raise RefusedError(f"holds a {note.role} whose arrays do not fit together")
        if (np.diff(starts.astype(np.int64)) < 0).any() or (len(inner) and not 0 <= inner.min() <= inner.max() < width):
            raise RefusedError(f"holds a {note.role} whose indices lie outside it")
        kind = sparse.csr_matrix if note.role == "csr_matrix" else sparse.csc_matrix
        return kind((values, inner.astype(np.int64), starts.astype(np.int64)), shape)
