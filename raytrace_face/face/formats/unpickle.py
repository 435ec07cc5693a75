"""Pickles of face models, read without running them.

A pickle is a program: `pickle.load` calls whatever it names. Here the same opcodes (their table and the readers of
their arguments are the standard library's `pickletools`) run on a stack that holds data only. A name is a pair of
strings, and a call is a note of what should be built from what: no class is looked up and nothing is called, so a
hostile file has nothing to turn against us. A name outside `KNOWN_NAMES` is refused on sight. Notes of arrays become
arrays by `np.frombuffer`, after their shapes have been held against the bytes that are there.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from raytrace_face.errors import ModelError

MAX_BYTES = 1_000_000_000
"""Largest file that is read. FLAME's are 50 to 200 MB (text protocol)."""
MAX_OPCODES = 1_000_000
"""A model is a few thousand opcodes; a million take about a second."""

KNOWN_NAMES: dict[tuple[str, str], str] = {
    ("numpy.core.multiarray", "_reconstruct"): "array",
    ("numpy._core.multiarray", "_reconstruct"): "array",
    ("numpy.core.multiarray", "scalar"): "scalar",
    ("numpy._core.multiarray", "scalar"): "scalar",
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("scipy.sparse.csc", "csc_matrix"): "csc_matrix",
    ("scipy.sparse._csc", "csc_matrix"): "csc_matrix",
    ("scipy.sparse.csr", "csr_matrix"): "csr_matrix",
    ("scipy.sparse._csr", "csr_matrix"): "csr_matrix",
    ("chumpy.ch", "Ch"): "chumpy",
    ("copy_reg", "_reconstructor"): "instance",
    ("copyreg", "_reconstructor"): "instance",
    ("__builtin__", "object"): "object",
    ("builtins", "object"): "object",
    ("__builtin__", "set"): "set",
    ("builtins", "set"): "set",
    ("_codecs", "encode"): "bytes",
}
"""(module, name) as Python 2 and 3 write them -> what it stands for here."""
CALLS = {"array", "scalar", "dtype", "set"}
CLASSES = {"csc_matrix", "csr_matrix", "chumpy"}
NUMBERS = re.compile(r"b1|[iuf][248]|[iu]1")
"""Types of arrays: no objects, strings or records."""

_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING"),
    *("SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    "BINUNICODE8",
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TABLE = {opcode.code: opcode for opcode in pickletools.opcodes}
OPCODES = {
    *_LITERALS,
    *_CONSTANTS,
    *("PROTO", "FRAME", "MARK", "EMPTY_LIST", "EMPTY_SET", "LIST", "APPEND", "APPENDS", "ADDITEMS", "TUPLE", "TUPLE1"),
    *(
        "TUPLE2",
        "TUPLE3",
        "EMPTY_DICT",
        "DICT",
        "SETITEM",
        "SETITEMS",
        "PUT",
        "BINPUT",
        "LONG_BINPUT",
        "MEMOIZE",
        "GET",
    ),
    *("BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "STOP"),
}
"""All others are refused: old-style instances, the extension registry, persistent ids, buffers from outside."""


class _RefusedError(Exception):
    """The file asks for something no model file needs."""


@dataclass(frozen=True)
class _Name:
    module: str
    name: str

    @property
    def role(self) -> str:
        return KNOWN_NAMES[self.module, self.name]


@dataclass(eq=False)
class _Note:
    """What the file wants built: a `role` from these arguments, then given a state."""

    role: str
    arguments: tuple
    state: Any = None


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
            tree = _run(data)
        if not isinstance(tree, dict):
            raise _RefusedError("holds no dictionary of arrays")
        built = _Builder(len(data))
        return {key: built(value) for key, value in tree.items() if _wanted(value)}
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error}): give the model's own file") from error
    except _RefusedError as error:
        raise ModelError(f"{path} {error}; nothing of it was run. Take the file from its publisher again") from error
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error, Warning) as error:
        raise ModelError(f"{path} is damaged as a pickle ({error}): take the file from its publisher again") from error


def _opcodes(stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
    for _ in range(MAX_OPCODES):
        opcode = _TABLE.get(stream.read(1).decode("latin-1"))
        if opcode is None:
            raise ValueError(f"no opcode at byte {max(stream.tell() - 1, 0)}")
        if opcode.name not in OPCODES:
            raise _RefusedError(f"uses the opcode {opcode.name}, which no model file needs")
        if opcode.name == "STRING":  # pickletools reads ASCII only, but Python 2 put the bytes of arrays there
            line = stream.readline()
            if len(line) < 3 or line[:1] not in b"'\"" or line[-2:] != line[:1] + b"\n":
                raise ValueError("a string without its quotes: were its line ends changed to CR LF?")
            yield opcode.name, line[1:-2].decode("unicode_escape")
        elif opcode.name == "GLOBAL":
            yield opcode.name, tuple(stream.readline().decode("ascii").rstrip("\n") for _ in range(2))
        else:
            yield opcode.name, opcode.arg.reader(stream) if opcode.arg else None
        if opcode.name == "STOP":
            return
    raise _RefusedError(f"has more than {MAX_OPCODES} opcodes")


def _run(data: bytes) -> Any:
    """What the pickle leaves on its stack, with `_Note`s in place of objects."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def top(kind: type) -> Any:
        if not isinstance(stack[-1], kind):
            raise ValueError(f"{type(stack[-1]).__name__} where a {kind.__name__} belongs")
        return stack[-1]

    def enter(pairs: list[Any]) -> None:
        keys = pairs[::2]
        if not all(isinstance(key, str) for key in keys):
            raise ValueError("a dictionary whose keys are not text")
        top(dict).update(zip(keys, pairs[1::2], strict=True))

    for opcode, argument in _opcodes(io.BytesIO(data)):
        match opcode:
            case _ if opcode in _LITERALS:
                stack.append(argument)
            case _ if opcode in _CONSTANTS:
                stack.append(_CONSTANTS[opcode])
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                marks.append(len(stack))
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "LIST":
                stack.append(since_mark())
            case "APPEND":
                value = stack.pop()
                top(list).append(value)
            case "APPENDS" | "ADDITEMS":
                values = since_mark()
                top(list).extend(values)
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                pairs = since_mark()
                stack.append({})
                enter(pairs)
            case "SETITEM":
                value = stack.pop()
                enter([stack.pop(), value])
            case "SETITEMS":
                enter(since_mark())
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_named(*argument))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_named(module, name))
            case "REDUCE" | "NEWOBJ":
                arguments = stack.pop()
                stack.append(_noted(stack.pop(), arguments, CALLS if opcode == "REDUCE" else CLASSES))
            case "BUILD":
                state = stack.pop()
                note = top(_Note)
                if note.state is not None:
                    raise _RefusedError(f"sets the state of a {note.role} twice")
                note.state = state
            case "STOP":
                return stack.pop()
    raise ValueError("it ends before its end mark")


def _named(module: Any, name: Any) -> _Name:
    if (module, name) not in KNOWN_NAMES:
        raise _RefusedError(f"names {module}.{name}: a face model holds numpy arrays and scipy sparse matrices only")
    return _Name(module, name)


def _noted(callee: Any, arguments: Any, allowed: set[str]) -> Any:
    """The note of a call; what it may apply to is `allowed`, and what Python 2 and 3 need as detours."""
    if not isinstance(callee, _Name):
        raise _RefusedError(f"calls a {type(callee).__name__}: only names of arrays can be called")
    if not isinstance(arguments, tuple):
        raise ValueError("a call without a tuple of arguments")
    match callee.role, arguments:
        case "instance", (_Name(), _Name(), None) if allowed is CALLS and arguments[1].role == "object":
            return _noted(arguments[0], (), CLASSES)
        case "bytes", (str(), "latin1") if allowed is CALLS:  # Python 3 writes bytes so for protocols below 3
            return arguments[0].encode("latin-1")
        case "array", (_Name(), *_) if arguments[0].role != "ndarray":
            raise _RefusedError(f"builds an array of class {arguments[0].module}.{arguments[0].name}")
        case role, _ if role in allowed:
            return _Note(role, arguments)
    raise _RefusedError(f"calls {callee.module}.{callee.name} as no model file does")


def _wanted(value: Any) -> bool:
    return not (isinstance(value, (list, tuple, dict, _Name)) or (isinstance(value, _Note) and value.role == "set"))


class _Builder:
    """Turns notes into arrays; every note once, and all together no more bytes than the file has."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.done: dict[int, Any] = {}

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, _Note):
            return value
        if id(value) not in self.done:
            makers = {"array": self._array, "scalar": self._scalar, "chumpy": self._chumpy}
            self.done[id(value)] = makers.get(value.role, self._sparse)(value)
        return self.done[id(value)]

    def _numbers(self, dtype: NDArray | Any, shape: Any, raw: Any) -> NDArray:
        kind = self._dtype(dtype)
        sizes = isinstance(shape, tuple) and len(shape) <= 8 and all(type(n) is int and n >= 0 for n in shape)
        if not sizes or not isinstance(raw, (str, bytes)):
            raise _RefusedError(f"holds an array of shape {shape!r:.60} without the bytes of its numbers")
        claimed = math.prod(shape) * kind.itemsize
        if claimed != len(raw) or claimed > self.left:
            raise _RefusedError(f"holds an array {shape} that claims {claimed} bytes where there are {len(raw)}")
        self.left -= claimed
        return np.frombuffer(raw.encode("latin-1") if isinstance(raw, str) else raw, kind)

    @staticmethod
    def _dtype(note: Any) -> np.dtype:
        name = note.arguments[0] if isinstance(note, _Note) and note.role == "dtype" and note.arguments else note
        order = note.state[1] if isinstance(note, _Note) and isinstance(note.state, tuple) else "?"
        if not isinstance(name, str) or not NUMBERS.fullmatch(name) or order not in ("<", ">", "|", "="):
            raise _RefusedError(f"holds an array of dtype {name!r:.60}, not of numbers")
        return np.dtype(order + name)

    def _array(self, note: _Note) -> NDArray:
        if not isinstance(note.state, tuple) or len(note.state) != 5:
            raise _RefusedError("holds an array without its content")
        _, shape, dtype, columns_first, raw = note.state
        return self._numbers(dtype, shape, raw).reshape(shape, order="F" if columns_first else "C")

    def _scalar(self, note: _Note) -> Any:
        dtype, raw = note.arguments
        return self._numbers(dtype, (), raw)[0].item()

    def _chumpy(self, note: _Note) -> Any:
        wrapped = note.state.get("x") if isinstance(note.state, dict) else None
        if not isinstance(wrapped, _Note) or wrapped.role != "array":
            raise _RefusedError("holds a chumpy object that wraps no array")
        return self(wrapped)

    def _sparse(self, note: _Note) -> Any:
        state = note.state if isinstance(note.state, dict) else {}
        parts = [state.get(key) for key in ("data", "indices", "indptr")]
        shape = state.get("_shape", state.get("shape"))
        if note.role not in CLASSES or not all(isinstance(p, _Note) and p.role == "array" for p in parts):
            raise _RefusedError(f"holds a {note.role} without its content")
        values, inner, starts = (self(p) for p in parts)
        if not isinstance(shape, tuple) or len(shape) != 2 or not all(type(n) is int and n >= 0 for n in shape):
            raise _RefusedError(f"holds a {note.role} of shape {shape!r:.60}")
        outer, width = shape if note.role == "csr_matrix" else shape[::-1]
        whole = inner.dtype.kind in "iu" and starts.dtype.kind in "iu" and values.ndim == inner.ndim == starts.ndim == 1
        if not whole or len(starts) != outer + 1 or len(values) != len(inner) or starts[0] or starts[-1] != len(inner):
            raise _RefusedError(f"holds a {note.role} whose arrays do not fit together")
        if (np.diff(starts.astype(np.int64)) < 0).any() or (len(inner) and not 0 <= inner.min() <= inner.max() < width):
            raise _RefusedError(f"holds a {note.role} whose indices lie outside it")
        kind = sparse.csr_matrix if note.role == "csr_matrix" else sparse.csc_matrix
        return kind((values, inner.astype(np.int64), starts.astype(np.int64)), shape)
