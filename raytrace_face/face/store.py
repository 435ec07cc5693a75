"""The embedded face model on disk: a plain npz of arrays (never pickles), checked when it is read.

It is kept coarse (quads, bases quantised to 2 micrometres) and subdivided by one sparse matrix when it is loaded.
Models that users bring lie in `face.library`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from raytrace_face.errors import ModelError
from raytrace_face.face.check import check_model
from raytrace_face.face.mesh import (
    Floats,
    Index,
    catmull_clark,
    corner_map,
    mirrored_faces,
    subdivided_mirror,
    triangulate,
)
from raytrace_face.face.model import PARTS, FaceModel

COARSE_FORMAT = "raytrace_face coarse model 1"
STEP_MM = 0.002
"""Quantisation of the bases on disk."""
DEFAULT_LEVEL = 1
STORED_LEVEL = 1
"""Level of the uv and landmark embedding on disk."""


@dataclass(frozen=True)
class CoarseModel:
    """The embedded model before subdivision: V closed vertices, U >= V opened ones (cut along the back), Q quads."""

    name: str
    mean: Floats
    """(V, 3) mm, head frame, symmetric."""
    identity: Floats
    """(K, V, 3) mm per standard deviation."""
    expression: Floats
    """(E, V, 3) mm at weight 1."""
    expression_names: tuple[str, ...]
    quads: Index
    """(Q, 4) into the opened vertices."""
    quad_part: NDArray[np.uint8]
    """(Q,) index into `PARTS`."""
    source: Index
    """(U,) closed vertex of each opened one."""
    mirror: Index
    """(U,) opened vertex mirrored at x = 0."""
    uv: Floats
    """(U1, 2) texture coordinates after one subdivision."""
    landmark_index: NDArray[np.int32]
    landmark_triangle: NDArray[np.int32]
    """(N,) triangle of the model after one subdivision."""
    landmark_barycentric: Floats
    landmark_sigma_mm: Floats
    regions: dict[str, Floats]
    """(V,) weights."""
    licence: str
    provenance: dict[str, str]


def _write(path: Path, arrays: Mapping[str, NDArray]) -> None:
    # A fixed time stamp, unlike np.savez: the same model gives the same bytes.
    with zipfile.ZipFile(path, "w") as archive:
        for key in sorted(arrays):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(arrays[key]), allow_pickle=False)
            info = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, buffer.getvalue(), compresslevel=9)


def _read(path: Path) -> dict[str, NDArray]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as data:
            arrays = {key: data[key] for key in data.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zipfile.error) as error:
        raise ModelError(f"{path} cannot be read as a face model ({error}): install it again") from error
    except Exception as error:  # zlib.error and friends on damaged members
        raise ModelError(f"{path} is damaged ({error}): install it again") from error
    mark = str(arrays.get("format", ""))
    if mark != COARSE_FORMAT:
        raise ModelError(f"{path} is marked {mark!r}, not {COARSE_FORMAT!r}: it is no face model of this version")
    for key, value in arrays.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ModelError(f"{path}: array {key!r} holds values that are not finite: install it again")
    return arrays


def _labels(model: CoarseModel) -> dict[str, NDArray]:
    return {
        "format": np.array(COARSE_FORMAT),
        "name": np.array(model.name),
        "licence": np.array(model.licence),
        "expression_names": np.array(model.expression_names, dtype=np.str_),
        "provenance": np.array(json.dumps(model.provenance, sort_keys=True)),
    }


def _unlabel(arrays: Mapping[str, NDArray]) -> dict:
    return {
        "name": str(arrays["name"]),
        "licence": str(arrays["licence"]),
        "expression_names": tuple(str(n) for n in arrays["expression_names"]),
        "provenance": dict(json.loads(str(arrays["provenance"]))),
    }


def save_coarse(model: CoarseModel, path: str | Path) -> None:
    """Write the embedded model: bases as int16 multiples of `STEP_MM`, regions as bytes."""

    def quantised(basis: Floats) -> NDArray[np.int16]:
        whole = np.rint(basis / STEP_MM)
        if np.abs(whole).max() > 32767:
            raise ModelError(f"a mode moves a vertex by more than {32767 * STEP_MM:.0f} mm: it cannot be stored")
        return np.ascontiguousarray(whole.astype(np.int16).transpose(0, 2, 1))

    arrays: dict[str, NDArray] = {
        "mean": model.mean.astype(np.float32),
        "identity": quantised(model.identity),
        "expression": quantised(model.expression),
        "quads": model.quads.astype(np.int32),
        "quad_part": model.quad_part.astype(np.uint8),
        "source": model.source.astype(np.int32),
        "mirror": model.mirror.astype(np.int32),
        "uv": model.uv.astype(np.float32),
        "landmark_index": model.landmark_index.astype(np.int32),
        "landmark_triangle": model.landmark_triangle.astype(np.int32),
        "landmark_barycentric": model.landmark_barycentric.astype(np.float32),
        "landmark_sigma_mm": model.landmark_sigma_mm.astype(np.float32),
    }
    arrays |= {f"region_{n}": np.rint(w * 255).astype(np.uint8) for n, w in model.regions.items()}
    _write(Path(path), arrays | _labels(model))


def load_coarse(path: str | Path) -> CoarseModel:
    """Read what `save_coarse` wrote.

    Raises:
        ModelError: the file is damaged or its arrays do not fit together.
    """
    arrays: dict[str, Any] = _read(Path(path))
    try:
        model = CoarseModel(
            mean=arrays["mean"],
            identity=arrays["identity"].transpose(0, 2, 1) * np.float32(STEP_MM),
            expression=arrays["expression"].transpose(0, 2, 1) * np.float32(STEP_MM),
            regions={
                key[len("region_") :]: a.astype(np.float32) / 255
                for key, a in arrays.items()
                if key.startswith("region_")
            },
            **{
                key: arrays[key]
                for key in (
                    "quads",
                    "quad_part",
                    "source",
                    "mirror",
                    "uv",
                    "landmark_index",
                    "landmark_triangle",
                    "landmark_barycentric",
                    "landmark_sigma_mm",
                )
            },
            **_unlabel(arrays),
        )
    except KeyError as error:
        raise ModelError(f"{path} lacks the array {error}: install it again") from error
    v, u = len(model.mean), len(model.source)
    shapes_fit = (
        model.identity.shape[1:] == (v, 3)
        and model.expression.shape == (len(model.expression_names), v, 3)
        and model.mirror.shape == (u,)
        and len(model.quad_part) == len(model.quads)
        and 0 <= model.source.min() <= model.source.max() < v
        and 0 <= model.quads.min() <= model.quads.max() < u
        and all(w.shape == (v,) for w in model.regions.values())
    )
    if not shapes_fit:
        raise ModelError(f"{path}: arrays do not fit together: install it again")
    return model


def subdivided(coarse: CoarseModel, level: int) -> FaceModel:
    """The model after `level` Catmull-Clark steps, triangulated. Bases go through the same matrix as the mean."""
    closed: Index
    opened: Index
    source: Index
    mirror: Index
    closed, opened = coarse.source[coarse.quads].astype(np.int64), coarse.quads.astype(np.int64)
    source, mirror = coarse.source.astype(np.int64), coarse.mirror.astype(np.int64)
    part, uv = coarse.quad_part, None
    matrix = None
    for step in range(level):
        smooth = catmull_clark(closed, int(closed.max()) + 1)
        split = catmull_clark(opened, len(source), smooth=False)
        mirror = subdivided_mirror(opened, mirror)
        uv = coarse.uv if step + 1 == STORED_LEVEL else (split.matrix @ uv if uv is not None else None)
        matrix = smooth.matrix if matrix is None else smooth.matrix @ matrix
        closed, opened = smooth.quads, split.quads
        part = np.repeat(part, 4)
        source = corner_map(opened, closed, split.matrix.shape[0])
    if uv is None:
        uv = coarse.uv[: len(source)]
    matrix = None if matrix is None else matrix.astype(np.float32)[source]

    def lift(field: Floats) -> NDArray[np.float32]:
        flat = np.ascontiguousarray(field.astype(np.float32).transpose(1, 0, 2).reshape(len(coarse.mean), -1))
        fine = flat[source] if matrix is None else matrix @ flat
        return np.ascontiguousarray(fine.reshape(len(source), len(field), 3).transpose(1, 0, 2))

    first = np.full(int(source.max()) + 1, len(source))
    np.minimum.at(first, source, np.arange(len(source)))
    # Quads that the mirror maps onto each other get mirrored diagonals.
    flip = coarse.mean[coarse.source[coarse.quads]].mean(1)[:, 0] < 0
    triangles = triangulate(opened, _mirrored_diagonals(opened, mirror, np.repeat(flip, len(opened) // len(flip))))
    mean = _symmetric_points(lift(coarse.mean[None])[0], mirror)
    model = FaceModel(
        name=coarse.name,
        mean=mean,
        identity=lift(coarse.identity),
        expression=lift(coarse.expression),
        expression_names=coarse.expression_names,
        triangles=triangles.astype(np.int32),
        triangle_part=np.repeat(part, 2),
        uv=_symmetric_uv(np.asarray(uv, np.float32), mirror),
        weld=first[source].astype(np.int32),
        mirror=mirror.astype(np.int32),
        landmark_index=coarse.landmark_index,
        landmark_triangle=coarse.landmark_triangle,
        landmark_barycentric=coarse.landmark_barycentric,
        landmark_sigma_mm=coarse.landmark_sigma_mm,
        regions={n: np.clip(lift(np.repeat(w[None, :, None], 3, 2))[0, :, 0], 0, 1) for n, w in coarse.regions.items()},
        licence=coarse.licence,
        provenance=coarse.provenance,
    )
    return model if level == STORED_LEVEL else _carry_landmarks(model, coarse)


def _mirrored_diagonals(quads: Index, mirror: Index, right: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(Q,) which quads take the other diagonal so that the triangulation is its own mirror image."""
    partner = mirrored_faces(quads, mirror)
    # The left quad uses its diagonal 0-2; its partner must join the images of those corners.
    ends = mirror[quads[partner][:, [0, 2]]]
    same = (ends[:, :1] == quads[:, [0, 2]]).any(1)
    return right & ~same


def _symmetric_points(points: NDArray[np.float32], mirror: Index) -> NDArray[np.float32]:
    out = points.copy()
    own = np.arange(len(points))
    out[mirror == own, 0] = 0
    follow = own > mirror
    out[follow] = out[mirror[follow]] * np.array([-1, 1, 1], np.float32)
    return out


def _symmetric_uv(uv: NDArray[np.float32], mirror: Index) -> NDArray[np.float32]:
    """Make uv[mirror] == (1 - u, v) exactly: 1 - u is exact in floating point for u >= 0.5."""
    out = uv.copy()
    own = np.arange(len(uv))
    out[mirror == own, 0] = 0.5
    follow = (mirror != own) & ((uv[:, 0] < 0.5) | ((uv[:, 0] == 0.5) & (own > mirror)))
    out[follow, 0] = np.float32(1) - out[mirror[follow], 0]
    out[follow, 1] = out[mirror[follow], 1]
    return out


def _carry_landmarks(model: FaceModel, coarse: CoarseModel) -> FaceModel:
    """Embed the landmarks of the stored level in another level: nearest point of the mean surface."""
    reference = subdivided(coarse, STORED_LEVEL)
    points = reference.landmark_points(reference.mean)
    skin = np.flatnonzero(model.triangle_part == PARTS.index("skin"))
    centres = model.mean[model.triangles[skin]].mean(1)
    candidates = skin[cKDTree(centres).query(points, k=12)[1]]
    triangle, barycentric = closest_on_triangles(points, model.mean, model.triangles, candidates)
    return replace(model, landmark_triangle=triangle.astype(np.int32), landmark_barycentric=barycentric)


def closest_on_triangles(
    points: Floats, vertices: Floats, triangles: Index, candidates: Index
) -> tuple[Index, NDArray[np.float32]]:
    """Best of the candidate triangles (N, C) for each point (N, 3): triangle (N,) and barycentrics (N, 3)."""
    a, b, c = (vertices[triangles[candidates][..., k]].astype(np.float64) for k in range(3))
    p = points[:, None, :]
    u, v, w = b - a, c - a, p - a
    uu, uv, vv = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    wu, wv = (w * u).sum(-1), (w * v).sum(-1)
    det = np.maximum(uu * vv - uv * uv, 1e-12)
    s, t = (vv * wu - uv * wv) / det, (uu * wv - uv * wu) / det
    weights = np.clip(np.stack([1 - s - t, s, t], -1), 0, None)
    weights /= weights.sum(-1, keepdims=True)
    at = weights[..., :1] * a + weights[..., 1:2] * b + weights[..., 2:] * c
    best = ((at - p) ** 2).sum(-1).argmin(1)
    row = np.arange(len(points))
    return candidates[row, best], weights[row, best].astype(np.float32)


def embedded_path() -> Path:
    """Where the embedded model lies in the installed package."""
    return Path(str(resources.files("raytrace_face") / "assets" / "face_model.npz"))


@lru_cache(maxsize=2)
def load_embedded(subdivide: int = DEFAULT_LEVEL) -> FaceModel:
    """The face model that comes with the package, subdivided `subdivide` times (0 to 2)."""
    if not 0 <= subdivide <= 2:
        raise ModelError(f"subdivision level {subdivide} is not 0, 1 or 2")
    return check_model(subdivided(load_coarse(embedded_path()), subdivide))
