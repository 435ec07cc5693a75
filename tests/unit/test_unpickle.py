"""Pickled models are read as data: honest ones bit for bit, hostile ones refused before anything happens."""

from __future__ import annotations

import builtins
import os
import pickle
import struct
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from raytrace_face.errors import ModelError
from raytrace_face.face.formats import opcodes, unpickle
from raytrace_face.face.formats.unpickle import read_pickle
from tests.formats.layouts_flame import PythonTwoPickler

RNG = np.random.default_rng(3)
HONEST = {
    "v_template": RNG.normal(size=(7, 3)),
    "f": RNG.integers(0, 7, (4, 3)).astype(np.uint32),
    "shapedirs": RNG.normal(size=(7, 3, 5)),
    "big_endian": RNG.normal(size=(2, 2)).astype(">f4"),
    "J_regressor": sparse.random(5, 7, 0.4, "csc", rng=RNG),
    "bs_type": "lrotmin",
    "count": 400,
    "notes": ["a list", ("of", "things")],
}


def written(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "model.pkl").write_bytes(data)
    return tmp_path / "model.pkl"


def agree(found: dict, expected: dict) -> None:
    for key, value in expected.items():
        if sparse.issparse(value):
            np.testing.assert_array_equal(found[key].toarray(), value.toarray())
        elif isinstance(value, np.ndarray):
            assert found[key].dtype.newbyteorder("=") == value.dtype.newbyteorder("=")
            np.testing.assert_array_equal(found[key], value)
        elif not isinstance(value, (list, tuple)):
            assert found[key] == value


@pytest.mark.parametrize("protocol", [0, 2])
def test_what_python_2_wrote_is_read_bit_for_bit(tmp_path, protocol):
    found = read_pickle(written(tmp_path, PythonTwoPickler(protocol).dumps(HONEST)))
    agree(found, HONEST)
    assert "notes" not in found


@pytest.mark.parametrize("protocol", [0, 2])
def test_the_writer_of_these_tests_agrees_with_pickle_itself(protocol):
    # The standard library is the judge of the miniatures; chumpy is not installed, so without its class.
    plain = {key: value for key, value in HONEST.items() if key != "J_regressor"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy.core is an old name, as in the real files
        found = pickle.loads(PythonTwoPickler(protocol, chumpy=()).dumps(plain), encoding="latin1")
    agree(found, plain)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_what_python_3_writes_is_read_bit_for_bit(tmp_path, protocol):
    content = HONEST | {
        "columns": np.asfortranarray(HONEST["v_template"]),
        "scalar": np.float32(0.25),
        "mask": RNG.random(4) > 0.5,
    }
    found = read_pickle(written(tmp_path, pickle.dumps(content, protocol)))
    agree(found, content)


class Call:
    """Something that pickles as a call of `function(*arguments)`."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def hostile(marker: Path) -> dict[str, tuple[object, str]]:
    """Name -> (payload, what the refusal must name). Each would leave the marker if it were run."""
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "shell": (Call(os.system, f"touch {marker}"), f"{os.system.__module__}.system"),
        "process": (Call(subprocess.check_call, ["touch", str(marker)]), "check_call"),
        "eval": (Call(builtins.eval, code), "eval"),
        "exec": (Call(builtins.exec, code), "exec"),
        "import": (Call(builtins.__import__, "os"), "__import__"),
        "attribute chain": (Call(getattr, Call(builtins.__import__, "os"), "system"), "getattr"),
        "open for writing": (Call(open, str(marker), "w"), "open"),
        "numpy.load": (Call(np.load, str(marker), None, True), "load"),
        "numpy.memmap": (Call(np.memmap, str(marker), "u1", "w+", 0, (1,)), "memmap"),
        "savetxt": (Call(np.savetxt, str(marker), [1]), "savetxt"),
        "breakpoint": (Call(builtins.breakpoint), "breakpoint"),
        "hidden in a state": (Call(np.dtype, "f8", state=(Call(os.system, f"touch {marker}"),)), "system"),
        "hidden in an array": ({"v": np.array([Call(os.system, f"touch {marker}")], object)}, "system"),
        "sparse that loads": (Call(sparse.load_npz, str(marker)), "load_npz"),
        "method of a class": (Call(np.ndarray.tofile, np.zeros(1), str(marker)), "getattr"),
    }


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("attack", sorted(hostile(Path("x"))))
def test_hostile_pickles_are_refused_by_name_and_nothing_runs(tmp_path, attack, protocol):
    marker = tmp_path / "marker"
    payload, named = hostile(marker)[attack]
    path = written(tmp_path, pickle.dumps({"v_template": payload}, protocol))
    with pytest.raises(ModelError, match=named):
        read_pickle(path)
    assert not marker.exists()


def test_the_attacks_of_these_tests_are_real(tmp_path):
    # A test of the tests: pickle itself does run them.
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(hostile(marker)["shell"][0]))
    assert marker.exists()


ARRAY = PythonTwoPickler(2).array(np.arange(6.0).reshape(2, 3))
"""An honest array of 48 bytes, to be tampered with."""
TWO_BY_THREE = PythonTwoPickler(2).value((2, 3))


def entry(value: bytes) -> bytes:
    return b"\x80\x02}" + b"U\x01v" + value + b"s."


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


NDARRAY, CALL = name("numpy", "ndarray"), name("numpy.core.multiarray", "_reconstruct")
FORGED = {
    "call of a call": (CALL + b"(" + NDARRAY + b"K\x00\x85U\x01btR)R", "calls a Note"),
    "call of a text": (b"U\x06system)R", "calls a str"),
    "call of a class": (name("scipy.sparse.csc", "csc_matrix") + b")R", "csc_matrix"),
    "instance of a function": (CALL + b")\x81", "_reconstruct"),
    "instance by reconstructor of a function": (
        name("copy_reg", "_reconstructor") + b"(" + CALL + name("__builtin__", "object") + b"NtR",
        "_reconstruct",
    ),
    "array of another class": (CALL + b"(" + name("chumpy.ch", "Ch") + b"K\x00\x85U\x01btR", "chumpy.ch.Ch"),
    "state for a name": (name("numpy", "dtype") + b"}U\x08__call__Nsb", "Name where a Note"),
    "state for a text": (b"U\x01x}b", "str where a Note"),
    "slots of a class": (name("chumpy.ch", "Ch") + b"N}U\x0c__setstate__Ns\x86b", "Name where a Note"),
    "state twice": (name("chumpy.ch", "Ch") + b")\x81}U\x01xK\x01sb}b", "twice"),
    "chumpy of a text": (name("chumpy.ch", "Ch") + b")\x81}U\x01xU\x01ysb", "wraps no array"),
    "chumpy in itself": (name("chumpy.ch", "Ch") + b")\x81q\x01}U\x01xh\x01sb", "wraps no array"),
    "array without content": (CALL + b"(" + NDARRAY + b"K\x00\x85U\x01btR", "without its content"),
    "class of old style": (b"(ios\nsystem\n", "opcode INST"),
    "object of old style": (b"(" + NDARRAY + b"o", "opcode OBJ"),
    "extension registry": (b"\x82\x01", "opcode EXT1"),
    "persistent id": (b"Pid\n", "opcode PERSID"),
    "persistent id, binary": (b"K\x01Q", "opcode BINPERSID"),
    "buffer from outside": (b"\x97", "opcode NEXT_BUFFER"),
    "codec that decompresses": (name("_codecs", "encode") + b"U\x01xU\x03zip\x86R", "_codecs.encode"),
    "array of objects": (ARRAY.replace(b"f8", b"O8"), "dtype 'O8'"),
    "array of records": (ARRAY.replace(b"f8", b"V8"), "dtype 'V8'"),
    "array that claims more": (ARRAY.replace(b"J" + struct.pack("<i", 3), b"J" + struct.pack("<i", 2**30)), "claims"),
    "array of negative size": (ARRAY.replace(b"J" + struct.pack("<i", 3), b"J" + struct.pack("<i", -3)), "shape"),
    "text beyond the file": (b"T" + struct.pack("<i", 2**31 - 1) + b"x", "damaged"),
    "memo never filled": (b"h\x07", "damaged"),
    "tuples a half million deep": (ARRAY.replace(TWO_BY_THREE, b")" + 9**6 * b"\x85"), "of shape"),
    "line ends in a name": (b"\x8c\x02a\n\x8c\x03\x1b[1\x93", r"names a\\n\.\\x1b\[1"),
    "key that is no text": (b"}K\x01K\x02s", "keys are not text"),
    "byte that is no opcode": (b"\xff", "no opcode"),
}


@pytest.mark.parametrize("forgery", sorted(FORGED))
def test_forged_streams_are_refused(tmp_path, forgery):
    value, said = FORGED[forgery]
    with pytest.raises(ModelError, match=said):
        read_pickle(written(tmp_path, entry(value)))


def test_the_stream_that_was_tampered_with_was_honest(tmp_path):
    np.testing.assert_array_equal(read_pickle(written(tmp_path, entry(ARRAY)))["v"], np.arange(6.0).reshape(2, 3))


def test_damaged_files_are_refused(tmp_path):
    whole = PythonTwoPickler(2).dumps(HONEST)
    for end in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        with pytest.raises(ModelError, match="damaged"):
            read_pickle(written(tmp_path, whole[:end]))
    with pytest.raises(ModelError, match="CR LF"):
        read_pickle(written(tmp_path, PythonTwoPickler(0).dumps({"bs_type": "lbs"}).replace(b"\n", b"\r\n")))
    with pytest.raises(ModelError, match="no dictionary"):
        read_pickle(written(tmp_path, pickle.dumps([1, 2])))
    with pytest.raises(ModelError, match="cannot be read"):
        read_pickle(tmp_path / "absent.pkl")


def test_random_bytes_and_random_changes_never_raise_anything_else(tmp_path):
    rng = np.random.default_rng(0)
    whole = PythonTwoPickler(2).dumps(HONEST)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(256)
        try:
            read_pickle(written(tmp_path, bytes(data)))
        except ModelError:
            refused += 1
    assert refused > 40  # the other changes hit numbers, which any bytes may be


def test_bombs_are_refused(tmp_path, monkeypatch):
    # One text of 1 kB that 2000 arrays claim as theirs: together more bytes than the file has.
    pickler = PythonTwoPickler(2)
    many = {f"k{k}": np.zeros(128) for k in range(3)}
    shared = pickler.dumps(many)
    assert read_pickle(written(tmp_path, shared)).keys() == many.keys()
    raw = b"T" + struct.pack("<i", 1024) + bytes(1024)
    head, _, rest = PythonTwoPickler(2).array(np.zeros(128)).partition(raw)
    first, again = head + raw + b"q\x50" + rest, head + b"h\x50" + rest
    entries = b"".join(b"U\x04%04d" % k + (first if k == 0 else again) for k in range(200))
    with pytest.raises(ModelError, match="claims"):
        read_pickle(written(tmp_path, b"\x80\x02}(" + entries + b"u."))
    # The same by Python 3's detour, which makes bytes of a text.
    raw, coded = b"h\x50", name("_codecs", "encode") + b"h\x50U\x06latin1\x86R"
    entries = entries.replace(raw, coded)
    with pytest.raises(ModelError, match="claims"):
        read_pickle(written(tmp_path, b"\x80\x02}(" + entries + b"u."))
    monkeypatch.setattr(opcodes, "MAX_OPCODES", 1000)
    with pytest.raises(ModelError, match="more than 1000 opcodes"):
        read_pickle(written(tmp_path, b"(" * 1001))
    monkeypatch.setattr(unpickle, "MAX_BYTES", 1000)
    with pytest.raises(ModelError, match="no face model in a pickle is that large"):
        read_pickle(written(tmp_path, shared))


def test_lists_of_lists_of_lists_cost_nothing(tmp_path):
    # Ten references to ten references to ..., sixty deep: 10^60 items if anything walked through them.
    data = b"]q\x00"
    for k in range(60):
        data += b"](" + b"h" + bytes([k]) + b"h" * 0 + (b"h" + bytes([k])) * 9 + b"eq" + bytes([k + 1])
    data = b"\x80\x02}U\x01v(" + data + b"tsU\x01wK\x05s."
    assert read_pickle(written(tmp_path, data)) == {"w": 5}
