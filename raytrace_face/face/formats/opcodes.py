"""The opcodes of a pickle on a stack that holds data only: what it asks for, with nothing looked up and nothing called.

A pickle is a program: `pickle.load` calls whatever it names. Here the same opcodes (their table and the readers of
their arguments are the standard library's `pickletools`) leave notes: a name is a pair of strings, a call is a note of
what should be built from what. A hostile file has nothing to turn against us. A name outside `KNOWN_NAMES` and an
opcode outside `OPCODES` are refused on sight.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
CALLS = {"array", "scalar", "dtype", "set", "bytes"}
CLASSES = {"csc_matrix", "csr_matrix", "chumpy"}
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
    *("PROTO", "FRAME", "MARK", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_SET", "ADDITEMS", "EMPTY_DICT"),
    *("DICT", "SETITEM", "SETITEMS", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "PUT", "BINPUT", "LONG_BINPUT"),
    *("MEMOIZE", "GET", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "STOP"),
}
"""All others are refused: old-style instances, the extension registry, persistent ids, buffers from outside."""


class RefusedError(Exception):
    """The file asks for something no model file needs."""


@dataclass(frozen=True)
class Name:
    """A name the file may use. It stands for nothing but itself."""

    module: str
    name: str

    @property
    def role(self) -> str:
        return KNOWN_NAMES[self.module, self.name]


@dataclass(eq=False)
class Note:
    """What the file wants built: a `role` from these arguments, then given a state."""

    role: str
    arguments: tuple
    state: Any = None


def said(text: Any) -> str:
    """Words out of the file, made fit for one line of a terminal."""
    return str(text).encode("unicode_escape").decode("ascii")[:100]


def _opcodes(stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
    for _ in range(MAX_OPCODES):
        opcode = _TABLE.get(stream.read(1).decode("latin-1"))
        if opcode is None:
            raise ValueError(f"no opcode at byte {max(stream.tell() - 1, 0)}")
        if opcode.name not in OPCODES:
            raise RefusedError(f"uses the opcode {opcode.name}, which no model file needs")
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
    raise RefusedError(f"has more than {MAX_OPCODES} opcodes")


def notes(data: bytes) -> Any:
    """What the pickle leaves on its stack, with `Note`s in place of objects."""
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
                note = top(Note)
                if note.state is not None:
                    raise RefusedError(f"sets the state of a {note.role} twice")
                note.state = state
            case "STOP":
                return stack.pop()
    raise ValueError("it ends before its end mark")


def _named(module: Any, name: Any) -> Name:
    if (module, name) not in KNOWN_NAMES:
        raise RefusedError(
            f"names {said(module)}.{said(name)}: a face model holds numpy arrays and scipy sparse matrices only"
        )
    return Name(module, name)


def _noted(callee: Any, arguments: Any, allowed: set[str]) -> Any:
    """The note of a call; what it may apply to is `allowed`, and what Python 2 and 3 need as detours."""
    if not isinstance(callee, Name):
        raise RefusedError(f"calls a {type(callee).__name__}: only names of arrays can be called")
    if not isinstance(arguments, tuple):
        raise ValueError("a call without a tuple of arguments")
    match callee.role, arguments:
        case "instance", (Name(), Name(), None) if allowed is CALLS and arguments[1].role == "object":
            return _noted(arguments[0], (), CLASSES)
        case "bytes", _ if arguments[1:] != ("latin1",):  # the only codec that Python 3 writes bytes with
            raise RefusedError(f"calls _codecs.encode with {said(arguments[1:])}")
        case "array", (Name(), *_) if arguments[0].role != "ndarray":
            raise RefusedError(f"builds an array of class {arguments[0].module}.{arguments[0].name}")
        case role, _ if role in allowed:
            return Note(role, arguments)
    raise RefusedError(f"calls {callee.module}.{callee.name} as no model file does")
