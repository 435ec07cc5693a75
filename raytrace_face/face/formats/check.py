"""Checks that every reader makes: whole files, finite numbers, arrays that fit together, triangles that are a head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from raytrace_face.errors import ModelError
from raytrace_face.face.formats.raw import RawModel
from raytrace_face.face.mesh import Floats, Index, edges_of, triangle_normals
from raytrace_face.face.model import PARTS

SIZE_MM = (80.0, 1000.0)
"""Plausible height of a model: a face without forehead is 120 mm high, a head with shoulders half a metre. Outside of
it the file is in other units than its layout says."""
MAX_DEGENERATE = 0.01
"""Share of triangles without area that is let through: published heads have a few at poles and sewn seams, where they
hide nothing; more of them, and the vertices are not those of the triangles."""
MAX_NON_MANIFOLD = 0.001
"""Share of edges with more than two triangles that is let through: normals and registration survive a sewn lid or lip
corner. A list of triangles that belongs to another mesh, or is read the wrong way round, makes most edges so."""
MIN_AREA_MM2 = 1e-6
"""A triangle below has no area: its sides are near a micrometre, the rounding of float32 at the size of a head."""


@contextmanager
def reading(path: Path, layout: str) -> Iterator[None]:
    """Turn whatever a library says of a damaged file into one `ModelError`; wrap library calls in it, nothing else."""
    if not path.exists():
        raise ModelError(f"{str(path)!r} does not exist: give the path of {layout}")
    try:
        yield
    except ModelError:
        raise
    except KeyError as error:
        raise ModelError(f"{path.name!r} lacks {error}: it is no {layout}, or only a part of one") from error
    except Exception as error:  # zlib, zipfile, h5py and scipy each have errors of their own
        said = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"{path.name!r} cannot be read as {layout} ({said}): it is cut off or damaged; get it again"
        ) from error


def expect(array: np.ndarray, shape: Sequence[int], path: Path, name: str) -> None:
    """Raise `ModelError` unless `array` is finite numbers of that shape; -1 stands for any length."""
    fits = array.ndim == len(shape) and all(n in (-1, have) for n, have in zip(shape, array.shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if n < 0 else str(n) for n in shape)
        raise ModelError(f"{path.name!r}: {name} has shape {array.shape}, the layout says ({wanted}): get it again")
    if array.dtype.kind not in "fiu":
        raise ModelError(f"{path.name!r}: {name} holds {array.dtype}, not numbers: get it again")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ModelError(f"{path.name!r}: {name} holds values that are not finite: the file is damaged; get it again")


def check_triangles(triangles: Index, count: int, path: Path) -> None:
    """Raise `ModelError` unless triangles (F, 3) point at `count` vertices."""
    if len(triangles) == 0:
        raise ModelError(f"{path.name!r} has no triangles: get it again")
    if triangles.min() < 0 or triangles.max() >= count:
        wrong = triangles.min() if triangles.min() < 0 else triangles.max()
        raise ModelError(f"{path.name!r}: a triangle points at vertex {wrong}, but there are {count}: get it again")


def outward(vertices: Floats, triangles: Index) -> Index:
    """Triangles (F, 3) turned, all or none, to be counter-clockwise seen from outside.

    The cone volumes over the middle of a head or of a face (a bowl) sum to a positive number then.
    """
    from_middle = vertices[triangles].mean(1) - vertices[np.unique(triangles)].mean(0)
    volume = (from_middle * triangle_normals(vertices, triangles)).sum()
    return triangles if volume > 0 else triangles[:, ::-1]


def check_raw(raw: RawModel, path: Path) -> RawModel:
    """The model, unless its arrays do not fit together or are no head.

    Raises:
        ModelError: wrong shapes, not finite, indices out of range, wrong units, too many triangles without area or
            edges with more than two triangles. The message names the file and the fault.
    """
    v, f, t = len(raw.mean), len(raw.triangles), 0 if raw.uv is None else len(raw.uv)
    shapes: dict[str, tuple[int, ...]] = {
        "mean": (v, 3),
        "identity": (-1, v, 3),
        "expression": (len(raw.expression_names), v, 3),
        "expression_modes": (-1, v, 3),
        "triangles": (f, 3),
        "triangle_part": (f,),
        "uv": (t, 2),
        "uv_triangles": (f, 3),
    }
    arrays = {name: getattr(raw, name) for name in shapes}
    if raw.albedo is not None:
        for name, shape in {"diffuse": (v, 3), "specular": (v, 3), **dict.fromkeys(_MODES, (-1, v, 3))}.items():
            shapes[f"albedo.{name}"], arrays[f"albedo.{name}"] = shape, getattr(raw.albedo, name)
    for name, shape in shapes.items():
        if arrays[name] is not None:
            expect(arrays[name], shape, path, name)
    if len(raw.identity) == 0:
        raise ModelError(f"{path.name!r} has no identity modes: a model with one face cannot be fitted")
    check_triangles(raw.triangles, v, path)
    if raw.triangle_part is not None and raw.triangle_part.max() >= len(PARTS):
        raise ModelError(f"{path.name!r}: a triangle is of part {raw.triangle_part.max()}, but there are {len(PARTS)}")
    if (raw.uv is None) != (raw.uv_triangles is None):
        raise ModelError(f"{path.name!r} has texture coordinates without triangles, or the other way round")
    if raw.uv_triangles is not None:
        check_triangles(raw.uv_triangles, t, path)
    _check_surface(raw, path)
    return raw


_MODES = ("diffuse_modes", "specular_modes")


def _check_surface(raw: RawModel, path: Path) -> None:
    vertices = raw.mean.astype(np.float64)
    height = float(np.ptp(vertices[np.unique(raw.triangles), 1]))
    if not SIZE_MM[0] < height < SIZE_MM[1]:
        raise ModelError(
            f"{path.name!r} is {height:.3g} mm high, which no head is ({SIZE_MM[0]:.0f} to {SIZE_MM[1]:.0f} mm): "
            f"its numbers are not in the units of {raw.format}"
        )
    area = np.linalg.norm(triangle_normals(vertices, raw.triangles), axis=1) / 2
    empty = float((area < MIN_AREA_MM2).mean())
    if empty > MAX_DEGENERATE:
        raise ModelError(
            f"{path.name!r}: {empty:.1%} of the triangles have no area (at most {MAX_DEGENERATE:.0%} is let through): "
            "vertices and triangles do not belong together; get it again"
        )
    uses = edges_of(raw.triangles)[2]
    crowded = int((uses > 2).sum())
    if crowded > MAX_NON_MANIFOLD * len(uses):
        raise ModelError(
            f"{path.name!r}: {crowded} of {len(uses)} edges belong to more than two triangles (non-manifold; at most "
            f"{MAX_NON_MANIFOLD:.1%} is let through): the triangle list is damaged; get it again"
        )
