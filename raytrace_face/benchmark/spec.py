"""A benchmark on disk: `benchmark.toml` names the protocol, its options and its items; files lie beside it.

    format_version = 1
    protocol = "yaleb"
    title = "Extended Yale B"
    [options]
    colour = "linear"
    [[item]]
    id = "yaleB02_A+000E+00"
    photo = "photos/yaleB02_A+000E+00.png"

Items may carry any further keys that their protocol knows. Paths are relative to the folder and may not leave it.
`[options]` of a made benchmark holds `files`, a digest of what lies beside the description: made from other data it is
another benchmark, and nothing that was found on the old one is taken for it.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from raytrace_face.errors import InputError

FORMAT_VERSION = 1
FILE = "benchmark.toml"
PROTOCOLS = ("yaleb", "synthetic", "now", "micc")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
PATHS = ("photo", "truth", "head", "scan", "landmarks")
"""Keys of an item that name a file."""


@dataclass(frozen=True)
class Item:
    """One photo (or none, for scans given with meshes) and what is known about it."""

    id: str
    values: Mapping[str, Any] = field(hash=False)
    """The item's table without its id."""

    def __getitem__(self, key: str) -> Any:
        if key not in self.values:
            raise InputError(f"benchmark item {self.id!r} has no {key!r}: add it to {FILE}")
        return self.values[key]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark folder, read and checked."""

    folder: Path
    protocol: str
    title: str
    options: Mapping[str, Any]
    items: tuple[Item, ...]

    def path(self, relative: str) -> Path:
        """A file of the benchmark.

        Raises:
            InputError: it lies outside of the folder or does not exist.
        """
        path = (self.folder / relative).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise InputError(f"{FILE}: path {relative!r} leaves the benchmark's folder: keep its files inside")
        if not path.exists():
            raise InputError(f"{FILE}: {relative!r} does not exist in {str(self.folder)!r}: make the benchmark again")
        return path

    def check_files(self) -> None:
        """Find out before the work whether the files that the items name are there.

        Raises:
            InputError: one is missing, or lies outside of the folder.
        """
        for item in self.items:
            for key in PATHS:
                if key in item.values:
                    self.path(str(item[key]))

    def key(self, item: Item) -> str:
        """Digest of everything in the description that decides an item's figures."""
        text = json.dumps([self.protocol, dict(self.options), item.id, dict(item.values)], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def load(folder: Path) -> Benchmark:
    """Read a benchmark folder.

    Raises:
        InputError: no `benchmark.toml`, not valid, an unknown protocol, a newer version, ids that are not names or
            not unique.
    """
    path = folder / FILE
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{str(folder)!r} is not a benchmark (no readable {FILE}, {error.strerror}): make one with "
            "'raytrace-face benchmark make'"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} is not valid TOML ({error}): correct it") from error
    version, protocol = values.get("format_version"), values.get("protocol")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise InputError(f"{str(path)!r} has format_version {version!r}: this program reads up to {FORMAT_VERSION}")
    if protocol not in PROTOCOLS:
        raise InputError(f"{str(path)!r} has protocol {protocol!r}: use one of {', '.join(PROTOCOLS)}")
    entries, options = values.get("item", []), values.get("options", {})
    if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
        raise InputError(f"{str(path)!r} has no [[item]]: a benchmark needs at least one")
    if not isinstance(options, dict):
        raise InputError(f"{str(path)!r} has options {options!r}: [options] must be a table")
    items = tuple(Item(str(e.get("id", "")), {k: v for k, v in e.items() if k != "id"}) for e in entries)
    _check_ids(items, path)
    return Benchmark(folder, protocol, str(values.get("title", protocol)), options, items)


def _check_ids(items: Sequence[Item], path: Path) -> None:
    seen: set[str] = set()
    for item in items:
        if not ID.fullmatch(item.id):
            raise InputError(f"{str(path)!r} has an item with id {item.id!r}: letters, digits and . _ + - only")
        if item.id in seen:
            raise InputError(f"{str(path)!r} names item {item.id!r} twice: ids must be unique")
        seen.add(item.id)


def write(folder: Path, protocol: str, title: str, options: Mapping[str, Any], items: Sequence[Item]) -> None:
    """Write `benchmark.toml` into a folder that has all its other files already.

    Values may be strings, numbers, booleans, and lists and tables of them.

    Raises:
        InputError: ids that are not names or not unique.
    """
    _check_ids(items, Path(FILE))
    lines = [f"format_version = {FORMAT_VERSION}", f"protocol = {_toml(protocol)}", f"title = {_toml(title)}"]
    options = {**options, "files": _digest(folder)}
    lines += ["", "[options]", *(f"{key} = {_toml(value)}" for key, value in options.items())]
    for item in items:
        lines += ["", "[[item]]", f"id = {_toml(item.id)}"]
        lines += [f"{key} = {_toml(value)}" for key, value in item.values.items()]
    (folder / FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _digest(folder: Path) -> str:
    """Of names and bytes of all files in a folder."""
    found = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != FILE):
        with path.open("rb") as file:
            found.update(path.relative_to(folder).as_posix().encode() + hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def _toml(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, str):
        # TOML's basic strings are JSON's, but for DEL and for characters beyond U+FFFF, which JSON writes as two
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple | np.ndarray):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, int | np.integer):
        return str(int(value))
    return repr(float(value))
