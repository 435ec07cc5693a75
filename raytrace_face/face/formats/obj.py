"""Wavefront OBJ as face models use it: positions fast, and the topology with its charts once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Obj:
    """One textured mesh: V vertices, T texture coordinates, F triangles (fans of the file's polygons, in its order)."""

    vertices: NDArray[np.float64]
    """(V, 3) in the file's own units."""
    uv: NDArray[np.float64]
    """(T, 2), origin bottom-left."""
    triangles: NDArray[np.int64]
    """(F, 3) into `vertices`."""
    uv_triangles: NDArray[np.int64]
    """(F, 3) into `uv`."""
    material: NDArray[np.int64]
    """(F,) into `materials`; -1 before the first `usemtl`."""
    materials: tuple[str, ...]
    """Names, in order of first use."""


def positions(data: bytes) -> NDArray[np.float64]:
    """(V, 3) of the `v` lines of an OBJ file.

    Raises:
        ValueError: a line does not hold three numbers, or the file ends before its faces (it is cut off).
    """
    if b"\nf " not in data:
        raise ValueError("it ends before its faces")
    return _numbers([line[2:] for line in data.splitlines() if line.startswith(b"v ")], 3)


def parse(data: bytes) -> Obj:
    """A whole OBJ file.

    Raises:
        ValueError: a line is not what it should be, or a face has no texture coordinates.
    """
    names: list[str] = []
    corners: list[tuple[int, int]] = []
    material: list[int] = []
    current = -1
    for line in data.splitlines():
        if line.startswith(b"usemtl "):
            name = line.split()[1].decode()
            if name not in names:
                names.append(name)
            current = names.index(name)
        elif line.startswith(b"f "):
            face = [word.split(b"/") for word in line.split()[1:]]
            if len(face) < 3 or min(map(len, face)) < 2:
                raise ValueError(f"face {line[:60].decode(errors='replace')!r} lacks corners or texture coordinates")
            pairs = [(int(words[0]) - 1, int(words[1]) - 1) for words in face]
            for k in range(1, len(pairs) - 1):
                corners += [pairs[0], pairs[k], pairs[k + 1]]
                material.append(current)
    both = np.array(corners, np.int64).reshape(-1, 3, 2)
    uv = _numbers([line[3:] for line in data.splitlines() if line.startswith(b"vt ")], 2)
    return Obj(positions(data), uv, both[..., 0], both[..., 1], np.array(material, np.int64), tuple(names))


def _numbers(lines: list[bytes], columns: int) -> NDArray[np.float64]:
    if not lines:
        return np.zeros((0, columns))
    return np.loadtxt(lines, ndmin=2, usecols=range(columns), comments=None)
