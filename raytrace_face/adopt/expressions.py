"""The embedded model's 52 ARKit units on another mesh, by deformation transfer.

Sumner and Popović ("Deformation transfer for triangle meshes", SIGGRAPH 2004) ask for the deformed target whose
triangles change as the corresponding source triangles do, `min sum_t A_t |S_s(t) - T_t|^2` (eq. 8). With the gradient
operator G of the target's rest shape this is the Poisson problem `G^T A G u = G^T A (S - I)` in the displacement u
(Botsch et al., "Deformation transfer for detail-preserving surface editing", 2006), one factorisation for all units.
Gradients do not say where things are: u is held softly to the displacement of the corresponding source points, so that
details are the gradients' and what is larger than `LENGTH_MM` is the source's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from raytrace_face.adopt.correspond import Match, Surface, vertex_part
from raytrace_face.adopt.parts import pieces
from raytrace_face.face.mesh import Floats, Index, rigid_fit, triangle_normals, vertex_areas
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.types import Array

LENGTH_MM = 15.0
"""Scale at which gradients and positions share the say: half an eye."""
LID_MM = 1.5
"""The same on the lids: where a closed lid lies on the ball is a matter of position."""
LOOSE_MM = 300.0
"""The same for points without correspondence, held to rest: they follow their neighbours."""
STRAIN_LIMIT = 4.0
"""Largest stretch of a source triangle that is believed; slivers at lids and lips exceed it."""
RIDGE_MM2 = 0.002
"""What one standard deviation of a mode may cost in mean squared error: 3 sigma are as dear as 0.13 mm."""
CONNECTED_TRUST = 0.05
"""A piece of the mesh with less trusted skin moves rigidly."""


@dataclass(frozen=True)
class Expressions:
    """Units on a mesh."""

    basis: Array
    """(E, V, 3) mm at weight 1."""
    transferred: tuple[str, ...]
    """Names that the model itself lacks."""
    native: Array | None
    """(E, N) coefficients of the model's own modes; None: it has none."""
    kept: dict[str, float]
    """Transferred name -> share of its motion of the face that the modes can follow, 0 to 1."""


def make_expressions(
    surface: Surface, part: NDArray[np.uint8], embedded: FaceModel, found: Match, face: Floats, known: Floats,
    known_names: tuple[str, ...], modes: Floats,
) -> Expressions:  # fmt: skip
    """All units of the embedded model: those the model has by name, the others transferred.

    Args:
        surface: the mean in the head frame.
        part: (F,) index into `PARTS`.
        found: its correspondence.
        face: (V,) weight of the region "face".
        known: (E', V, 3) the model's own units.
        known_names: (E',) their names.
        modes: (N, V, 3) its statistical expression space; N may be 0.
    """
    names = embedded.expression_names
    basis = np.zeros((len(names), len(surface.vertices), 3), np.float32)
    place = {name: k for k, name in enumerate(known_names)}
    missing = [k for k, name in enumerate(names) if name not in place]
    for k, name in enumerate(names):
        if name in place:
            basis[k] = known[place[name]]
    native = np.zeros((len(names), len(modes)), np.float32) if len(modes) else None
    kept: dict[str, float] = {}
    if missing:
        basis[missing] = transfer(surface, part, embedded, found, embedded.expression[missing])
    if missing and native is not None:
        weight = vertex_areas(surface.vertices, surface.triangles) * face
        projected, native[missing], share = project(basis[missing], modes, weight)
        basis[missing] = projected
        kept = {names[k]: float(value) for k, value in zip(missing, share, strict=True)}
    return Expressions(basis, tuple(names[k] for k in missing), native, kept)


def deformation(mean: Floats, triangles: Index, displacement: Floats) -> Floats:
    """(F, 3, 3) S - I of each triangle: eq. 4 of Sumner and Popović, with their fourth vertex along the normal."""
    return _frames(mean + displacement, triangles) @ _inverse_frames(mean, triangles) - np.eye(3)


def _frames(vertices: Floats, triangles: Index) -> Floats:
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    length = np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    return np.stack([b - a, c - a, normal / np.sqrt(length)], axis=2)


def _inverse_frames(vertices: Floats, triangles: Index) -> Floats:
    frames = _frames(vertices, triangles)
    singular = np.abs(np.linalg.det(frames)) < 1e-9
    frames[singular] = np.eye(3)
    return np.linalg.inv(frames)


def gradient(vertices: Floats, triangles: Index) -> sparse.csr_matrix:
    """(3 F, V) gradient in each triangle of a function given at the vertices; row 3 t + d is axis d of triangle t."""
    normal = triangle_normals(vertices, triangles)
    square = np.maximum((normal**2).sum(1, keepdims=True), 1e-12)
    corners = vertices[triangles]
    opposite = np.roll(corners, -2, axis=1) - np.roll(corners, -1, axis=1)  # the edge facing each corner
    slopes = np.cross(normal[:, None], opposite) / square[:, None]  # (F, 3 corners, 3)
    count = len(triangles)
    rows = (3 * np.arange(count)[:, None, None] + np.arange(3)).repeat(3, axis=1)
    columns = np.broadcast_to(triangles[:, :, None], rows.shape)
    return sparse.csr_matrix((slopes.ravel(), (rows.ravel(), columns.ravel())), (3 * count, len(vertices)))


def transfer(surface: Surface, part: NDArray[np.uint8], embedded: FaceModel, found: Match, source: Floats) -> Array:
    """Displacements (E, V_e, 3) of the embedded mean as displacements (E, V, 3) of another mean."""
    vertices, triangles = np.asarray(surface.vertices, np.float64), surface.triangles
    count = len(vertices)
    start = embedded.mean.astype(np.float64)
    welded = embedded.weld[embedded.triangles]
    interpolate = found.matrix(embedded)
    # Deformation gradients go by way of the source's vertices, where they are averaged over the triangles around.
    area = 0.5 * np.linalg.norm(triangle_normals(start, welded), axis=1)
    at_vertex = sparse.csr_matrix(
        (np.repeat(area, 3), (welded.ravel(), np.repeat(np.arange(len(welded)), 3))),
        (embedded.vertex_count, len(welded)),
    )
    total = np.maximum(np.asarray(at_vertex.sum(1)).ravel(), 1e-12)
    at_vertex = (sparse.diags(1 / total) @ at_vertex)[embedded.weld]
    corner = sparse.csr_matrix(
        (np.full(triangles.size, 1 / 3), (np.repeat(np.arange(len(triangles)), 3), triangles.ravel())),
        (len(triangles), count),
    )
    to_triangle = corner @ sparse.diags(found.trust) @ interpolate @ at_vertex
    inverse = _inverse_frames(start, welded)
    mass = vertex_areas(vertices, triangles) + 1e-9
    held = found.trust > 0
    lids = np.clip(2 * (interpolate @ embedded.regions["eyelids"].astype(np.float64)), 0, 1)
    length = LENGTH_MM + (LID_MM - LENGTH_MM) * lids
    hold = mass * np.where(held, found.trust / length**2, 1 / LOOSE_MM**2)
    slope = gradient(vertices, triangles)
    weight = np.repeat(0.5 * np.linalg.norm(triangle_normals(vertices, triangles), axis=1), 3)
    divergence = (slope.T @ sparse.diags(weight)).tocsr()
    solver = splu((divergence @ slope + sparse.diags(hold)).tocsc())
    loose = _loose_pieces(surface, part, found)
    out = np.empty((len(source), count, 3), np.float32)
    for k, moved in enumerate(source):
        if not moved.any():
            out[k] = 0
            continue
        step = moved.astype(np.float64)
        change = (_frames(start + step, welded) @ inverse - np.eye(3)).reshape(-1, 9)
        size = np.linalg.norm(change, axis=1, keepdims=True)
        change *= np.minimum(1, STRAIN_LIMIT / np.maximum(size, 1e-12))
        # Row k of S - I is the gradient of coordinate k: (F, 3 coordinates, 3 axes) -> (3 F, 3 coordinates).
        wanted = (to_triangle @ change).reshape(-1, 3, 3).transpose(0, 2, 1).reshape(-1, 3)
        carried = (interpolate @ step) * held[:, None]
        field = solver.solve(divergence @ wanted + hold[:, None] * carried)
        for own in loose:
            field[own] = _rigid(vertices[own], (interpolate @ step)[own])
        out[k] = field
    return out


def _loose_pieces(surface: Surface, part: NDArray[np.uint8], found: Match) -> list[Index]:
    """Vertices of each piece of the mesh that skin does not move: eyeballs, teeth, tongue."""
    count = len(surface.vertices)
    piece = pieces(surface.triangles, count)
    skin = vertex_part(surface.triangles, part, count) == PARTS.index("skin")
    used = np.zeros(count, bool)
    used[surface.triangles] = True
    size = np.bincount(piece[used], minlength=piece.max() + 1)
    lead = np.bincount(piece, found.trust * skin * used, minlength=piece.max() + 1)
    return [np.flatnonzero(piece == n) for n in np.flatnonzero((size > 0) & (lead < CONNECTED_TRUST * size))]


def _rigid(points: Floats, step: Floats) -> Floats:
    """The rigid motion (N, 3) nearest to displacements of points."""
    if len(points) < 4:
        return np.broadcast_to(step.mean(0), points.shape)
    _, rotation, shift = rigid_fit(points, points + step, np.ones(len(points)))
    return points @ rotation.T + shift - points


def project(units: Floats, modes: Floats, weight: Floats) -> tuple[Array, Array, Floats]:
    """Units (E, V, 3) in the span of modes (N, V, 3): the units there, coefficients (E, N) and shares kept (E,).

    Minimises the weighted mean of |u - sum c m|^2 [mm^2] + `RIDGE_MM2` |c|^2 / 1 over the vertices, c in sigma.
    """
    used = weight > 0
    root = np.sqrt(weight[used] / weight[used].sum()).astype(np.float32)[:, None]
    rows = (modes[:, used] * root).reshape(len(modes), -1).astype(np.float64)
    aims = (units[:, used] * root).reshape(len(units), -1).astype(np.float64)
    gram = rows @ rows.T + RIDGE_MM2 * np.eye(len(modes))
    coefficients = np.linalg.solve(gram, rows @ aims.T).T
    rest = ((aims - coefficients @ rows) ** 2).sum(1)
    whole = (aims**2).sum(1)
    share = np.where(whole > 1e-6, 1 - np.sqrt(rest / np.maximum(whole, 1e-12)), 1.0)
    found = np.tensordot(coefficients.astype(np.float32), np.asarray(modes, np.float32), 1)
    return found, coefficients.astype(np.float32), np.clip(share, 0, 1)
