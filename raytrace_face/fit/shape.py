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
from raytrace_face.face.model import FaceModel
from raytrace_face.tracer.render import GBuffer

F = NDArray[np.float64]

IRRADIANCE_BAND = np.array([1.0] + [2 / 3] * 3 + [1 / 4] * 5)
"""Cosine lobe over pi in SH bands 0, 1, 2 (Ramamoorthi & Hanrahan 2001, eq. 8)."""


def normal_jacobian(
    model: FaceModel, vertices: NDArray[np.floating], corners: NDArray[np.integer], barycentric: NDArray[np.floating]
) -> tuple[F, NDArray[np.float32]]:
    """Normals (P, 3) at points of the mesh and their derivatives (P, 3, K + E) by identity and expression."""
    used, local = np.unique(corners, return_inverse=True)
    local = local.reshape(-1)
    welded = model.weld[model.triangles]
    near = np.isin(welded, model.weld[used]).any(axis=1)
    triangles, weld = model.triangles[near], welded[near]
    basis = np.concatenate([model.identity, model.expression])
    X = np.asarray(vertices, np.float32)
    a, b, c = (X[triangles[:, k]] for k in range(3))
    da, db, dc = (basis[:, triangles[:, k]] for k in range(3))
    e1, e2 = b - a, c - a
    face = np.cross(e1, e2)
    dface = np.cross(db - da, e2[None]) + np.cross(e1[None], dc - da)  # (K + E, faces, 3)
    unique = np.unique(model.weld[used])
    rows = np.minimum(np.searchsorted(unique, weld), len(unique) - 1)
    known = unique[rows] == weld
    faces = np.repeat(np.arange(len(triangles)), 3).reshape(-1, 3)[known]
    ones = np.ones(len(faces), np.float32)
    gather = sparse.csr_matrix((ones, (rows[known], faces)), shape=(len(unique), len(triangles)))
    S = gather @ face
    dS = (gather @ dface.transpose(1, 0, 2).reshape(len(triangles), -1)).reshape(len(unique), len(basis), 3)
    length = np.maximum(np.linalg.norm(S, axis=1), 1e-3)  # mm^2; lips and lids fold to nothing
    N = S / length[:, None]
    dN = (dS - N[:, None] * np.einsum("vjc,vc->vj", dS, N)[:, :, None]) / length[:, None, None]
    at = np.searchsorted(unique, model.weld[used])[local].reshape(corners.shape)
    m = np.einsum("pk,pkc->pc", barycentric, N[at])
    size = np.maximum(np.linalg.norm(m, axis=1), 0.1)
    n = m / size[:, None]
    dm = np.zeros((len(corners), len(basis), 3), np.float32)
    for k in range(3):
        dm += barycentric[:, k, None, None] * dN[at[:, k]]
    dn = (dm - n[:, None] * np.einsum("pjc,pc->pj", dm, n)[:, :, None]) / size[:, None, None]
    return n.astype(np.float64), dn.transpose(0, 2, 1)


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
    _, dn = normal_jacobian(model, vertices, g.corners[select], g.barycentric[select])
    J = np.einsum("pc,pcj->pj", radiance_gradient, dn)
    w = np.sqrt(weight * cauchy_weight(residual, 2 * sigma) / correlated) / sigma
    design = np.zeros((len(select), 7 + J.shape[1]))
    design[:, 7:] = J * w[:, None]
    return design, residual * w
