"""Shape from shading in the model's own space: Gauss-Newton equations of identity and expression.

At a fixed pixel and with visibility held, the radiance moves with the normal:
    dI = rho (sum_l E_l V_l w_l + grad A(n)) . dn
with lights E_l at directions w_l, their visibility V_l, and the ambient irradiance A. The normals are those of the
mesh, linearised in the coefficients. Lights turn with the head here, so pose has no shading term; landmarks carry it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lightstage.environment import sh_basis
from lightstage.solve import cauchy_weight
from raytrace_face.face.camera import skew
from raytrace_face.face.model import FaceModel
from raytrace_face.tracer.render import GBuffer

F = NDArray[np.float64]

IRRADIANCE_BAND = np.array([1.0] + [2 / 3] * 3 + [1 / 4] * 5)
"""Cosine lobe over pi in SH bands 0, 1, 2 (Ramamoorthi & Hanrahan 2001, eq. 8)."""


def normal_jacobian(
    model: FaceModel, vertices: NDArray[np.floating], corners: NDArray[np.integer], barycentric: NDArray[np.floating]
) -> tuple[F, sparse.csr_matrix]:
    """Normals (P, 3) at points of the mesh and their derivatives (3 P, 3 V) by the vertices (V, 3).

    Sparse: a normal depends on the ring of triangles round its triangle. A point's normal is the mean of its corners',
    and theirs the sum of the cross products of the triangles round them, each normalised.
    """
    used, local = np.unique(model.weld[corners], return_inverse=True)
    at = local.reshape(corners.shape)
    welded = model.weld[model.triangles]
    near = np.isin(welded, used).any(axis=1)
    triangles, weld = model.triangles[near], welded[near]
    X = np.asarray(vertices, np.float64)
    a, b, c = (X[triangles[:, k]] for k in range(3))
    e1, e2 = b - a, c - a
    by_b, by_c = -skew(e2), skew(e1)  # of the cross product e1 x e2
    rows = np.minimum(np.searchsorted(used, weld), len(used) - 1)
    known = used[rows] == weld
    faces = np.repeat(np.arange(len(triangles)), 3).reshape(-1, 3)[known]
    gather = sparse.csr_matrix((np.ones(len(faces)), (rows[known], faces)), shape=(len(used), len(triangles)))
    S = gather @ np.cross(e1, e2)
    length = np.maximum(np.linalg.norm(S, axis=1), 1e-3)  # mm^2; lips and lids fold to nothing
    N = S / length[:, None]
    m = np.einsum("pk,pkc->pc", barycentric, N[at])
    size = np.maximum(np.linalg.norm(m, axis=1), 0.1)
    n = m / size[:, None]
    by_corner = np.einsum("pij,pk,pkjl->pkil", _across(n, size), barycentric, _across(N, length)[at], optimize=True)
    by_sum = _blocks(by_corner, at, len(used))
    of_face = _blocks(np.stack([-by_b - by_c, by_b, by_c], axis=1), triangles, len(X))
    return n, (by_sum @ sparse.kron(gather, np.eye(3), "bsr") @ of_face).tocsr()


def _across(unit: F, length: F) -> F:
    """(N, 3, 3) derivative of x / |x| by x, at x = length (N,) times unit vectors (N, 3)."""
    return (np.eye(3) - unit[:, :, None] * unit[:, None, :]) / length[:, None, None]


def _blocks(blocks: F, columns: NDArray[np.integer], count: int) -> sparse.bsr_matrix:
    """(3 N, 3 count) matrix of 3 x 3 blocks (N, B, 3, 3), B in each row of blocks, at block columns (N, B)."""
    start = np.arange(len(columns) + 1) * columns.shape[1]
    return sparse.bsr_matrix((blocks.reshape(-1, 3, 3), columns.ravel(), start), shape=(3 * len(columns), 3 * count))


def ambient_gradient(normals: F, ambient_sh: NDArray[np.floating]) -> F:
    """Gradient (P, 3, 3) [normal axis, colour] of irradiance / pi of order-2 SH at unit normals (P, 3)."""
    step = 1e-3
    out = np.empty((len(normals), 3, 3))
    for axis in range(3):
        shift = np.eye(3)[axis] * step
        difference = (sh_basis(normals + shift) - sh_basis(normals - shift)) / (2 * step)
        out[:, axis] = (difference * IRRADIANCE_BAND) @ ambient_sh
    return out


def shading_term(
    model: FaceModel,
    vertices: NDArray[np.floating],
    g: GBuffer,
    select: NDArray[np.integer],
    radiance_gradient: F,
    residual: F,
    weight: F,
    sigma: float,
    correlated: float,
) -> tuple[F, F]:
    """Shading equations for `fit.landmarks.step`, unknowns [rotation, translation, log focal, identity, expression].

    Args:
        select: (Q,) pixels used.
        radiance_gradient: (Q, 3) dI / dn of the predicted luminance.
        residual: (Q,) predicted minus observed luminance.
        weight: (Q,) weight of each pixel.
        sigma: standard deviation of the residual, in units of the image.
        correlated: pixels that err together.
    """
    _, by_vertex = normal_jacobian(model, vertices, g.corners[select], g.barycentric[select])
    P = len(select)
    towards = sparse.csr_matrix((radiance_gradient.ravel(), np.arange(3 * P), np.arange(P + 1) * 3), shape=(P, 3 * P))
    by_vertex = towards @ by_vertex
    moving = np.unique(by_vertex.indices // 3)
    basis = np.concatenate([model.identity[:, moving], model.expression[:, moving]]).reshape(-1, 3 * len(moving))
    entries = (3 * moving[:, None] + np.arange(3)).ravel()
    J = by_vertex[:, entries] @ basis.T
    w = np.sqrt(weight * cauchy_weight(residual, 2 * sigma) / correlated) / sigma
    design = np.zeros((len(select), 7 + J.shape[1]))
    design[:, 7:] = J * w[:, None]
    return design, residual * w
