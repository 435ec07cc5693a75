"""Light from transport: robust non-negative least squares, sparse by greedy selection, condensed into a rig.

For given transport the light is a convex problem. Plain NNLS over a dense stage *spreads* it: lights at grazing
directions cost nothing. So lights are added one at a time (orthogonal matching pursuit; Pati et al. 1993), each
tried exhaustively over the stage together with an ambient term, and kept only if it buys enough of a robust cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from lightstage.rig import Rig, StageLights, triangle_form_factor

F = NDArray[np.float64]


def cauchy_weight(residual: F, scale: F | float) -> F:
    """IRLS weight 1 / (1 + (r / s)^2) of the Cauchy loss."""
    return 1 / (1 + (residual / scale) ** 2)


def cauchy_cost(residual: F, scale: F | float) -> F:
    """Cauchy loss log(1 + (r / s)^2) / 2, elementwise."""
    return 0.5 * np.log1p((residual / scale) ** 2)


def bound_met(residual: F, clipped: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Where a pixel clipped (P,) and the prediction is brighter, for residuals (P, ...), predicted minus photo.

    There is nothing to explain there: such a residual is 0 and its weight too.
    """
    if clipped is None:
        return np.zeros(residual.shape, bool)
    return clipped.reshape(-1, *(1,) * (residual.ndim - 1)) & (residual > 0)


def robust_nnls(
    columns: F,
    image: F,
    weight: F,
    scale: F | float,
    ridge: F | float = 0.0,
    iterations: int = 6,
    pull: float = 0.0,
    towards: F | None = None,
    clipped: NDArray[np.bool_] | None = None,
) -> F:
    """Non-negative x (K, C) minimising the Cauchy cost of columns (P, K) @ x - image (P, C), plus ridge |x|^2.

    Args:
        weight: (P,) in [0, 1], confidence of the pixel.
        scale: residual at which a pixel starts to be an outlier, in units of the image.
        ridge: (K,) or scalar, multiplied by the mean squared column, so that it has no unit.
        pull: weight, in the same unit, of |x - towards|^2.
        towards: (K, C); None: 0.
        clipped: (P,) pixels that are at least as bright as `image` says.
    """
    K = columns.shape[1]
    x = np.zeros((K, image.shape[1]))
    share = np.ones(len(columns))
    size = np.sqrt(np.maximum((columns**2 * weight[:, None]).sum(0), 1e-12))
    damp = np.sqrt(np.broadcast_to(ridge, (K,)) + pull) * size
    drawn = np.zeros_like(x) if towards is None else pull * size[:, None] ** 2 * towards
    for i in range(iterations):
        w = weight * share
        H = columns.T @ (columns * w[:, None]) + np.diag(damp**2)
        # NNLS on the Cholesky factor: the same minimiser as on all P rows, at the cost of K rows
        C = np.linalg.cholesky(H + 1e-10 * np.trace(H) / K * np.eye(K))
        for c in range(image.shape[1]):
            x[:, c] = nnls(C.T, np.linalg.solve(C, columns.T @ (w * image[:, c]) + drawn[:, c]))[0]
        if i + 1 < iterations:
            signed = columns @ x - image
            share = cauchy_weight(np.sqrt((signed**2).mean(axis=1)), scale)
            share = share * ~bound_met(signed, clipped).all(axis=1)
    return x


def search_costs(
    candidates: F,
    fixed: F,
    image: F,
    weight: F,
    scale: float,
    iterations: int = 8,
    clipped: NDArray[np.bool_] | None = None,
) -> tuple[F, F]:
    """Robust cost of every candidate light, each fitted together with all `fixed` columns, non-negatively.

    Args:
        candidates: (P, D) columns tried one at a time.
        fixed: (P, K) columns that are always in (ambient, lights found before).
        image: (P,)
        clipped: (P,) pixels that are at least as bright as `image` says.

    Returns:
        cost: (D,) mean weighted Cauchy cost.
        x: (D, K + 1) amplitudes, the candidate's last.
    """
    P, D = candidates.shape
    K = fixed.shape[1]
    total = weight.sum()
    x = np.zeros((D, K + 1))
    share = np.ones((P, D))
    for _ in range(iterations):
        w = share * weight[:, None]
        H = np.empty((D, K + 1, K + 1))
        g = np.empty((D, K + 1))
        for i in range(K):
            wf = w * fixed[:, i : i + 1]
            for j in range(i, K):
                H[:, i, j] = H[:, j, i] = fixed[:, j] @ wf
            H[:, i, K] = H[:, K, i] = (wf * candidates).sum(0)
            g[:, i] = image @ wf
        wc = w * candidates
        H[:, K, K] = (wc * candidates).sum(0)
        g[:, K] = image @ wc
        x = _small_nnls(H, g)
        residual = fixed @ x[:, :K].T + candidates * x[:, K] - image[:, None]
        met = bound_met(residual, clipped)
        share = cauchy_weight(residual, scale) * ~met
    cost = (cauchy_cost(residual, scale) * ~met * weight[:, None]).sum(0) / total
    return cost, x


def _small_nnls(H: F, g: F, sweeps: int = 60) -> F:
    """Batched NNLS of tiny normal equations (D, K, K), (D, K) by cyclic coordinate descent."""
    D, K = g.shape
    x = np.zeros((D, K))
    diagonal = np.maximum(H[:, np.arange(K), np.arange(K)], 1e-12)
    for _ in range(sweeps):
        for k in range(K):
            slope = g[:, k] - (H[:, k] * x).sum(1) + diagonal[:, k] * x[:, k]
            x[:, k] = np.maximum(slope / diagonal[:, k], 0)
    return x


SWEEPS = 4
"""Times that all lights are chosen anew after one was added; two settle most cases."""
NEGLIGIBLE = 1e-4
"""Drop of the mean Cauchy cost below which a light explains noise: 1.4 % of the scale, root mean square."""


@dataclass(frozen=True)
class GreedyFit:
    """Lights found one at a time."""

    chosen: list[int]
    """Indices of the candidate columns, in the order in which they were added."""
    costs: list[float]
    """Robust cost with 0, 1, 2 ... lights; then, where one of them turned out to be needless, without it."""


def greedy(
    candidates: F,
    ambient: F,
    image: F,
    weight: F,
    scale: float,
    directions: F,
    max_lights: int = 3,
    penalty: float = 0.04,
    separation_deg: float = 35.0,
    clipped: NDArray[np.bool_] | None = None,
    iterations: int = 8,
) -> GreedyFit:
    """Add lights while each lowers the robust cost by more than `penalty` (relative; a quarter of it for the first).

    A light found alone stands between two real ones. So after each addition every light is chosen anew while the
    others are held, until nothing changes.

    Args:
        candidates: (P, D) transport columns times albedo.
        ambient: (P, A) ambient columns, always in.
        image: (P,) luminance.
        scale: Cauchy scale in units of the image.
        directions: (D, 3) unit vectors: two lights closer than `separation_deg` are one light.
        clipped: (P,) pixels that are at least as bright as `image` says.
        iterations: of the weights that make each cost robust.
    """
    x = robust_nnls(ambient, image[:, None], weight, scale, clipped=clipped)
    left = ambient @ x[:, 0] - image
    before = float((cauchy_cost(left, scale) * ~bound_met(left, clipped) * weight).sum() / weight.sum())
    cosine = directions @ directions.T
    near = np.cos(np.radians(separation_deg))

    def best_beside(others: list[int]) -> tuple[int, float]:
        fixed = np.concatenate([ambient, candidates[:, others]], axis=1)
        cost, _ = search_costs(candidates, fixed, image, weight, scale, iterations, clipped)
        cost[(cosine[others] >= near).any(axis=0)] = np.inf
        return int(np.argmin(cost)), float(cost.min())

    def cost_of(some: list[int]) -> float:
        fixed = np.concatenate([ambient, candidates[:, some[:-1]]], axis=1)
        return float(search_costs(candidates[:, some[-1:]], fixed, image, weight, scale, iterations, clipped)[0][0])

    def worth(cost: float, without: float, share: float) -> bool:
        return without - cost > max(share * without, NEGLIGIBLE)

    chosen: list[int] = []
    costs = [before]
    while len(chosen) < max_lights:
        light, cost = best_beside(chosen)
        trial = [*chosen, light]
        for _ in range(SWEEPS if chosen else 0):
            settled = True
            for k in range(len(trial)):
                light, renewed = best_beside(trial[:k] + trial[k + 1 :])
                if renewed < (1 - 1e-6) * cost and light != trial[k]:
                    trial[k], cost, settled = light, renewed, False
            if settled:
                break
        if not worth(cost, costs[-1], penalty if chosen else 0.25 * penalty):
            break
        if len(trial) > 2:  # a third light may have been what two stood in for
            rest = [trial[:k] + trial[k + 1 :] for k in range(len(trial))]
            without = [cost_of(some) for some in rest]
            k = int(np.argmin(without))
            if not worth(cost, without[k], penalty):
                return GreedyFit(rest[k], [*costs, cost, without[k]])
        chosen = trial
        costs.append(cost)
    return GreedyFit(chosen, costs)


def tangent_directions(direction: F, radius_deg: float, rings: int = 2) -> F:
    """`direction` and rings of 6 directions round it, out to `radius_deg`: (1 + 6 rings, 3)."""
    w = direction / np.linalg.norm(direction)
    u = np.cross(w, [0.0, 1.0, 0.0] if abs(w[1]) < 0.9 else [1.0, 0.0, 0.0])
    u /= np.linalg.norm(u)
    v = np.cross(w, u)
    out = [w]
    for ring in range(1, rings + 1):
        tilt = np.radians(radius_deg * ring / rings)
        for k in range(6):
            phi = np.pi / 3 * (k + 0.5 * (ring % 2))
            out.append(np.cos(tilt) * w + np.sin(tilt) * (np.cos(phi) * u + np.sin(phi) * v))
    return np.array(out)


def quadratic_minimum(directions: F, costs: F, radius_deg: float) -> F:
    """Unit direction of the minimum of a quadratic fitted to costs (N,) over directions (N, 3) about the first.

    Falls back to the best sample where the quadratic is not convex or its minimum lies outside the radius.
    """
    w = directions[0]
    u = np.cross(w, [0.0, 1.0, 0.0] if abs(w[1]) < 0.9 else [1.0, 0.0, 0.0])
    u /= np.linalg.norm(u)
    v = np.cross(w, u)
    a, b = directions @ u, directions @ v
    basis = np.stack([np.ones_like(a), a, b, a * a, a * b, b * b], axis=1)
    k = np.linalg.lstsq(basis, costs, rcond=None)[0]
    H = np.array([[2 * k[3], k[4]], [k[4], 2 * k[5]]])
    best = directions[int(np.argmin(costs))]
    if np.linalg.eigvalsh(H)[0] <= 0:
        return best
    s = -np.linalg.solve(H, k[1:3])
    if np.hypot(*s) > np.sin(np.radians(radius_deg)):
        return best
    out = w * np.sqrt(1 - s @ s) + u * s[0] + v * s[1]
    return out / np.linalg.norm(out)


def condense(
    rig: Rig, directions: F, irradiance: F, angular_radius_deg: float = 4.0, distance: float = 5.0
) -> StageLights:
    """Put lights given by direction (N, 3) and irradiance / pi (N, 3) into the faces of a rig.

    Each goes to the face its ray passes through, with that barycentric centre and the area of a disc of
    `angular_radius_deg`; lights that share a face are merged at their irradiance-weighted direction. The other
    lights are off. The irradiance at the stage centre is kept exactly.
    """
    L = rig.count
    centre, intensity = np.full((L, 2), 1 / 3), np.zeros((L, 3))
    dist, area = np.full(L, distance), np.full(L, 0.5)
    face = [int(np.argmax(_face_hit(rig, d).min(axis=1))) for d in directions]
    for f in sorted(set(face)):
        members = [k for k in range(len(face)) if face[k] == f]
        power = irradiance[members].mean(axis=1)
        d = (directions[members] * np.maximum(power, 1e-12)[:, None]).sum(0)
        bary = np.clip(_face_hit(rig, d / np.linalg.norm(d))[f], 0, None)
        bary /= bary.sum()
        centre[f] = bary[:2]
        corners = rig.face_corners[f]
        reach = np.linalg.norm(bary @ corners) * distance  # of the light from the centre, in stage radii
        disc = np.pi * (np.tan(np.radians(angular_radius_deg)) * reach) ** 2
        face_area = 0.5 * np.linalg.norm(np.cross(corners[1] - corners[0], corners[2] - corners[0]))
        area[f] = np.clip(disc / face_area, 1e-3, 1.0)
        intensity[f] = irradiance[members].sum(axis=0)
    lights = StageLights(rig, dist, area, centre, intensity)
    gain = triangle_form_factor(lights.corners_mm()) * dist**2 / area
    return StageLights(rig, dist, area, centre, intensity / gain[:, None])


def _face_hit(rig: Rig, direction: F) -> F:
    """Barycentric coordinates (L, 3) of the point where a ray from the centre meets the plane of each face.

    All three are non-negative on the face that is hit; rows of faces that look away are -inf.
    """
    corners = rig.face_corners
    out = np.linalg.solve(corners.transpose(0, 2, 1), np.broadcast_to(direction[:, None], (rig.count, 3, 1)))[..., 0]
    total = out.sum(axis=1, keepdims=True)
    return np.where(total > 1e-9, out / np.where(total > 1e-9, total, 1), -np.inf)
