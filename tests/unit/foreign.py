"""Models with a known truth, stripped to what a file would say: the embedded head, ICT-FaceKit, a frontal sheet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from raytrace_face.face.formats.raw import RawModel
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.fit.embedding import HeadPicture, hits


@dataclass(frozen=True)
class Foreign:
    """A raw model and where it came from."""

    raw: RawModel
    rotation: np.ndarray
    """(3, 3) and `shift` (3,): p_raw = rotation @ p_head + shift."""
    shift: np.ndarray
    origin: np.ndarray
    """(V,) vertex of the original that each raw vertex is."""


def stripped(
    model: FaceModel, *, turn_deg: tuple[float, float, float] = (6.0, -8.0, 4.0), modes: int = 4, seed: int = 3
) -> Foreign:
    """Mean, triangles and a few modes of a model, in another frame and order; everything else is forgotten."""
    rng = np.random.default_rng(seed)
    rotation = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
    shift = np.array([140.0, -260.0, 75.0])
    own = np.unique(model.weld)
    origin = own[rng.permutation(len(own))]
    place = np.full(model.vertex_count, -1)
    place[origin] = np.arange(len(origin))
    order = rng.permutation(len(model.triangles))
    raw = RawModel(
        format="stripped",
        version="",
        mean=(model.mean[origin] @ rotation.T + shift).astype(np.float32),
        identity=(model.identity[:modes, origin] @ rotation.T).astype(np.float32),
        triangles=place[model.weld[model.triangles[order]]].astype(np.int32),
        licence="test",
        citation="",
        provenance={},
        expression=np.zeros((0, len(origin), 3), np.float32),
        expression_names=(),
        expression_modes=np.zeros((0, len(origin), 3), np.float32),
    )
    return Foreign(raw, rotation, shift, origin)


def subset(raw: RawModel, keep: np.ndarray) -> tuple[RawModel, np.ndarray]:
    """The model with only some of its triangles (F,), and the old index of each vertex left."""
    used, local = np.unique(raw.triangles[keep], return_inverse=True)
    return (
        replace(
            raw,
            mean=raw.mean[used],
            identity=raw.identity[:, used],
            triangles=local.reshape(-1, 3).astype(np.int32),
            expression=raw.expression[:, used],
            expression_modes=raw.expression_modes[:, used],
            triangle_part=None if raw.triangle_part is None else raw.triangle_part[keep],
        ),
        used,
    )


def ict_raw(folder: Path, modes: int = 10, named: bool = True) -> RawModel:
    """ICT-FaceKit with parts and, if `named`, its expressions."""
    from raytrace_face.benchmark.ict import load_ict
    from raytrace_face.face.formats.ict import BOUNDS, arkit_name

    model = load_ict(folder).model
    part = model.triangle_part.copy()
    part[model.triangles.min(axis=1) >= BOUNDS[2][1]] = PARTS.index("eyes")
    names = [arkit_name(name) for name in model.expression_names]
    units = tuple(dict.fromkeys(names))
    expression = np.zeros((len(units), model.vertex_count, 3), np.float32)
    for name, unit in zip(names, model.expression, strict=True):  # the halves of those that ARKit does not split
        expression[units.index(name)] += unit
    return RawModel(
        format="ICT-FaceKit",
        version="",
        mean=model.mean,
        identity=model.identity[:modes],
        triangles=model.triangles,
        licence="MIT",
        citation="Li et al. 2020",
        provenance={},
        expression=expression if named else expression[:0],
        expression_names=units if named else (),
        expression_modes=expression[:0],
        triangle_part=part,
    )


def frontal_mask(raw: RawModel, step_mm: float = 1.6) -> tuple[RawModel, np.ndarray]:
    """Like Basel's models: one sheet seen from the front, eyes and all, with an open border and nothing inside.

    The expressions that the model had become its statistical expression space. Returns also the part (F,) that each
    triangle was cut from.
    """
    assert raw.triangle_part is not None
    far, low, high = 6000.0, raw.mean.min(0), raw.mean.max(0)
    centre = np.array([0.0, 0.5 * (high[1] + low[1]) + 10.0, 0.0])
    width = 210.0
    size = int(width / step_mm)
    fov = float(np.degrees(2 * np.arctan(0.5 * width / far)))
    colour = np.zeros_like(raw.mean)
    eye = centre + np.array([0.0, 0.0, far])
    picture = HeadPicture(raw.mean, colour, raw.triangles, colour, eye, centre, fov, size)
    rows, columns = np.mgrid[:size, :size]
    triangle, weights = hits(picture, np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1))
    corners = raw.triangles[triangle]

    def at(field: np.ndarray) -> np.ndarray:
        return np.einsum("nc,...ncd->...nd", weights, field[..., corners, :]).astype(np.float32)

    points = at(raw.mean)
    inside = (triangle >= 0) & (points[:, 2] > -45) & (np.abs(points[:, 1] - centre[1]) < 95)
    cell = (rows[:-1, :-1] * size + columns[:-1, :-1]).ravel()
    split = np.concatenate(
        [np.stack([cell, cell + size, cell + 1], 1), np.stack([cell + 1, cell + size, cell + size + 1], 1)]
    )
    split = split[inside[split].all(1) & (np.ptp(points[split][..., 2], axis=1) < 12)]
    sheet = replace(
        raw,
        format="frontal mask",
        mean=points,
        identity=at(raw.identity),
        triangles=split.astype(np.int32),
        expression=np.zeros((0, len(points), 3), np.float32),
        expression_names=(),
        expression_modes=at(raw.expression),
        triangle_part=None,
    )
    cut, used = subset(sheet, np.ones(len(split), bool))
    truth = raw.triangle_part[triangle[used]][cut.triangles]
    return cut, np.sort(truth, axis=1)[:, 1]
