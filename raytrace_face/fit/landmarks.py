"""The start: pose, focal length, identity and expression from landmarks, by damped Gauss-Newton.

Residuals are divided by their standard deviation, so that the cost is a negative log posterior: landmark noise and
embedding spread in mm, identity ~ N(0, 1), expression near the network's weights, camera distance log-normal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raytrace_face.face.camera import project, projection_jacobian, rigid_from_points, rotated, skew, to_camera
from raytrace_face.face.model import FaceModel
from raytrace_face.types import Camera, Capture, FaceParams, Photo

F = NDArray[np.float64]

NOISE_MM = 1.0
"""Standard deviation of a detected landmark on the face, mm: about 1.5 % of the distance between the eyes."""
CORRELATED = 6.0
"""Landmarks that err together: neighbours come from one network's idea of a face. Variances are multiplied by it."""
EXPRESSION_SIGMA = 0.2
"""How far expression weights may sensibly lie from the network's."""
DISTANCE_MM, DISTANCE_SIGMA = 1100.0, 0.45
"""Camera distance prior: portraits and selfies are taken from 0.5 to 2.5 m (2 sigma, log-normal)."""
EXIF_SIGMA = 0.08
"""Relative uncertainty of a focal length from EXIF (digital zoom and crops come on top and are not recorded)."""


@dataclass(frozen=True)
class LandmarkFit:
    """Result of the landmark start."""

    camera: Camera
    face: FaceParams
    rms_px: float
    """Root-mean-square landmark residual in photo pixels."""
    cost: list[float]
    """Negative log posterior after every iteration."""


@dataclass(frozen=True)
class LandmarkTerm:
    """Landmark residuals and prior as linear equations about a state, for Gauss-Newton.

    Unknowns in order: rotation (3, rad), translation (3, mm), log focal (1), identity (K), expression (E).
    """

    jacobian: F
    """(R, 7 + K + E)"""
    residual: F
    """(R,) in standard deviations."""
    rms_px: float


def landmark_basis(model: FaceModel) -> tuple[F, F]:
    """Basis of the landmark points (3 N, K + E) and their mean (N, 3), mm."""
    mean = model.landmark_points(model.mean).astype(np.float64)
    corners = model.triangles[model.landmark_triangle]
    bases = np.concatenate([model.identity[:, corners], model.expression[:, corners]])  # (K + E, N, 3, 3)
    basis = np.einsum("kncd,nc->ndk", bases.astype(np.float64), model.landmark_barycentric)
    return basis.reshape(-1, basis.shape[2]), mean


def embedded(model: FaceModel, capture: Capture) -> tuple[F, F, F]:
    """Observed pixels (N, 2), basis of the landmark points (3 N, K + E) and their mean (N, 3)."""
    return capture.landmarks_px[model.landmark_index].astype(np.float64), *landmark_basis(model)


def start_pose(model: FaceModel, capture: Capture, photo: Photo) -> tuple[Camera, F]:
    """Weak-perspective pose of the mean head from the network's own 3D landmarks, at the prior distance."""
    index = model.landmark_index
    points = np.concatenate([capture.landmarks_px[index], capture.landmark_depth_px[index, None]], axis=1)
    target = points * np.array([1.0, -1.0, -1.0])  # pixels, y up, z towards the camera
    scale, T = rigid_from_points(model.landmark_points(model.mean), target)
    focal = photo.focal_px if photo.focal_px is not None else scale * DISTANCE_MM
    camera = Camera(photo.width, photo.height, float(focal), (photo.width / 2, photo.height / 2))
    depth = focal / scale
    pose = np.eye(4)
    pose[:3, :3] = T[:3, :3]
    x, y = T[0, 3], -T[1, 3]
    pose[:3, 3] = [(x - photo.width / 2) * depth / focal, -(y - photo.height / 2) * depth / focal, -depth]
    return camera, pose


def linearise(
    model: FaceModel,
    data: tuple[F, F, F],
    camera: Camera,
    face: FaceParams,
    expression_start: NDArray[np.floating],
    exif_focal_px: float | None,
    distance_start: float,
) -> LandmarkTerm:
    """Landmark and prior equations about a state. See the module docstring for the variances."""
    observed, basis, mean = data
    K, E = len(model.identity), len(model.expression)
    coefficients = np.concatenate([face.identity, face.expression]).astype(np.float64)
    head = mean + (basis @ coefficients).reshape(-1, 3)
    R = np.asarray(face.T_camera_head, np.float64)[:3, :3]
    points = to_camera(face.T_camera_head, head)
    by_point, by_focal = projection_jacobian(camera, points)
    mm = -points[:, 2] / camera.focal_px  # millimetres a pixel
    sigma_mm = np.sqrt((NOISE_MM**2 + model.landmark_sigma_mm.astype(np.float64) ** 2) * CORRELATED)
    weight = (mm / sigma_mm)[:, None]
    error = project(camera, points) - observed
    by_rotation = by_point @ -skew(head @ R.T)
    by_basis = (by_point @ R) @ basis.reshape(-1, 3, K + E)
    J = np.concatenate([by_rotation, by_point, by_focal[:, :, None], by_basis], axis=2) * weight[:, :, None]
    r = (error * weight).ravel()
    unknowns = 7 + K + E
    J = J.reshape(-1, unknowns)
    # Huber: a landmark on a hand or behind hair must not pull harder than three standard deviations
    size = np.repeat(np.linalg.norm(r.reshape(-1, 2), axis=1), 2)
    huber = np.sqrt(np.minimum(1, 3 / np.maximum(size, 1e-9)))
    prior = np.zeros((K + E + 2, unknowns))
    residual = np.zeros(K + E + 2)
    prior[np.arange(K), 7 + np.arange(K)] = 1
    residual[:K] = face.identity
    prior[K + np.arange(E), 7 + K + np.arange(E)] = 1 / EXPRESSION_SIGMA
    residual[K : K + E] = (face.expression - expression_start) / EXPRESSION_SIGMA
    depth = -float(face.T_camera_head[2, 3])
    prior[K + E, 5] = -1 / depth / DISTANCE_SIGMA
    residual[K + E] = np.log(depth / distance_start) / DISTANCE_SIGMA
    if exif_focal_px is not None:
        prior[K + E + 1, 6] = 1 / EXIF_SIGMA
        residual[K + E + 1] = np.log(camera.focal_px / exif_focal_px) / EXIF_SIGMA
    rms = float(np.sqrt((error**2).sum(1).mean()))
    return LandmarkTerm(np.concatenate([J * huber[:, None], prior]), np.concatenate([r * huber, residual]), rms)


def step(
    terms: list[tuple[F, F]], camera: Camera, face: FaceParams, damping: float, max_sigma: float = 3.5
) -> tuple[Camera, FaceParams]:
    """One damped Gauss-Newton step on stacked equations, expression kept in [0, 1] and |identity| <= max_sigma."""
    J = np.concatenate([t[0] for t in terms])
    r = np.concatenate([t[1] for t in terms])
    K = len(face.identity)
    H = J.T @ J
    H[np.diag_indices_from(H)] *= 1 + damping
    g = J.T @ r
    low = np.full(len(g), -np.inf)
    high = np.full(len(g), np.inf)
    low[:3], high[:3] = -0.3, 0.3
    low[6], high[6] = -0.5, 0.5
    low[7 : 7 + K], high[7 : 7 + K] = -max_sigma - face.identity, max_sigma - face.identity
    low[7 + K :], high[7 + K :] = -face.expression - 1e-9, 1 - face.expression + 1e-9
    x = _bounded_solve(H, -g, low, high)
    T = rotated(face.T_camera_head, x[:3], x[3:6])
    T[2, 3] = min(T[2, 3], -200.0)  # nearer than 20 cm no camera sees a whole face
    moved = FaceParams(
        T.astype(np.float32),
        (face.identity + x[7 : 7 + K]).astype(np.float32),
        np.clip(face.expression + x[7 + K :], 0, 1).astype(np.float32),
    )
    return replace(camera, focal_px=float(camera.focal_px * np.exp(x[6]))), moved


def _bounded_solve(H: F, b: F, low: F, high: F) -> F:
    """Minimise x H x / 2 - b x within bounds: unknowns that leave them are fixed there, then the rest is solved again.

    Fixed unknowns are not released within one call; the next Gauss-Newton step starts afresh.
    """
    x = np.zeros(len(b))
    free = np.ones(len(b), bool)
    for _ in range(20):
        rest = b[free] - H[np.ix_(free, ~free)] @ x[~free]
        x[free] = np.linalg.solve(H[np.ix_(free, free)] + 1e-9 * np.eye(int(free.sum())), rest)
        out = free & ((x < low - 1e-12) | (x > high + 1e-12))
        if not out.any():
            break
        x = np.clip(x, low, high)
        free &= ~out
    return np.clip(x, low, high)


def expression_start(model: FaceModel, capture: Capture) -> NDArray[np.float32]:
    """The network's expression weights in the order of the model."""
    return np.array([capture.blendshapes.get(name, 0.0) for name in model.expression_names], np.float32)


def fit_landmarks(
    model: FaceModel,
    capture: Capture,
    photo: Photo,
    iterations: int = 12,
    mean_shape: bool = False,
    known: tuple[Camera, FaceParams] | None = None,
) -> LandmarkFit:
    """Fit camera, pose, identity and expression to the landmarks; well under a second.

    Args:
        mean_shape: keep the mean identity and the network's expression, and fit camera and pose only.
        known: begin here, and keep this identity and expression.
    """
    beta = expression_start(model, capture)
    if known is None:
        camera, pose = start_pose(model, capture, photo)
        face = FaceParams(pose.astype(np.float32), np.zeros(len(model.identity), np.float32), beta)
    else:
        camera, face = known
    data = embedded(model, capture)
    return descend(model, data, camera, face, beta, photo.focal_px, iterations, mean_shape or known is not None)


def descend(
    model: FaceModel,
    data: tuple[F, F, F],
    camera: Camera,
    face: FaceParams,
    beta: NDArray[np.float32],
    exif_focal_px: float | None,
    iterations: int,
    pose_only: bool = False,
) -> LandmarkFit:
    """Gauss-Newton on camera and face from a first guess.

    Args:
        data: of `embedded`.
        beta: (E,) the network's expression weights.
        exif_focal_px: what the file says of the focal length.
        pose_only: keep identity and expression.
    """
    cost: list[float] = []
    for i in range(iterations):
        term = linearise(model, data, camera, face, beta, exif_focal_px, DISTANCE_MM)
        cost.append(0.5 * float(term.residual @ term.residual))
        if pose_only:
            term.jacobian[:, 7:] = 0
        camera, face = step([(term.jacobian, term.residual)], camera, face, damping=10.0 ** (-1 - i / 2))
    term = linearise(model, data, camera, face, beta, exif_focal_px, DISTANCE_MM)
    cost.append(0.5 * float(term.residual @ term.residual))
    return LandmarkFit(camera, face, term.rms_px, cost)
