"""Where the network's 478 landmarks lie on a face model, found by showing the network rendered heads.

The mean head and a few random identities are rendered from several sides, the network marks its landmarks, and every
mark is cast back onto the mesh. The average over views and shapes is the embedding, the spread its standard deviation.
Works for any `FaceModel`; no hand-made index lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from raytrace_face.face.mesh import vertex_normals
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.face.store import closest_on_triangles
from raytrace_face.types import Array

LANDMARKS = 468
"""Irises (468-477) are left out: they turn with the eyes."""
INNER_LIPS = (
    78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95,
)  # fmt: skip
"""Landmarks on the inner rim of the lips: they hang on the teeth when the mouth opens."""
SIGMA_FLOOR_MM = 0.8
SIGMA_LIMIT_MM = 12.0
"""Landmarks that spread more are left out: no place on the skin."""
SNAP_MM = 3.5
HIT_TILE = 16.0
"""Pixels across the tiles into which `hits` sorts triangles."""
VIEWS_DEG = tuple((yaw, pitch) for pitch in (-12.0, 0.0, 12.0) for yaw in (-25.0, 0.0, 25.0))

Detect = Callable[[NDArray[np.uint8]], "NDArray[np.floating] | None"]
"""sRGB picture (H, W, 3) -> landmarks (478, 2) in pixels, None when no face is seen."""
Render = Callable[["HeadPicture"], NDArray[np.uint8]]


@dataclass(frozen=True)
class HeadPicture:
    """A head to be rendered by a pinhole camera, head frame in mm."""

    vertices: Array
    """(V, 3)."""
    normals: Array
    """(V, 3)."""
    triangles: NDArray[np.int32]
    """(F, 3)."""
    albedo: Array
    """(V, 3) linear Rec. 709."""
    eye: NDArray[np.float64]
    """(3,) camera position."""
    target: NDArray[np.float64]
    """(3,) point in the picture's centre."""
    fov_deg: float
    size: int

    def rays(self, pixels: NDArray[np.floating]) -> NDArray[np.float64]:
        """Unit directions (N, 3) through pixels (N, 2)."""
        forward = self.target - self.eye
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, np.array([0.0, 1.0, 0.0]))
        right /= np.linalg.norm(right)
        up = np.cross(right, forward)
        half = np.tan(np.radians(self.fov_deg) / 2)
        x, y = ((np.asarray(pixels, np.float64) / self.size * 2 - 1) * half).T
        direction = forward + x[:, None] * right - y[:, None] * up
        return direction / np.linalg.norm(direction, axis=1, keepdims=True)

    def project(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points (N, 3) -> pixels (N, 2)."""
        forward = self.target - self.eye
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, np.array([0.0, 1.0, 0.0]))
        right /= np.linalg.norm(right)
        up = np.cross(right, forward)
        offset = points - self.eye
        depth = offset @ forward
        half = np.tan(np.radians(self.fov_deg) / 2)
        x, y = offset @ right / depth / half, offset @ up / depth / half
        return np.stack([(x + 1) / 2, (1 - y) / 2], axis=1) * self.size


def calibration_albedo(model: FaceModel) -> Array:
    """Colours (V, 3) that make a head look alive to the network: skin, lips, brows, eyes with irises."""
    colour = np.tile(np.array([0.42, 0.26, 0.19], np.float32), (model.vertex_count, 1))

    def paint(name: str, to: tuple[float, float, float], amount: float) -> None:
        weight = amount * model.regions[name][:, None] if name in model.regions else np.float32(0)
        colour[:] = colour * (1 - weight) + weight * np.array(to, np.float32)

    paint("eye_sockets", (0.3, 0.17, 0.12), 0.4)
    paint("lips", (0.36, 0.13, 0.11), 0.9)
    paint("brows", (0.05, 0.03, 0.02), 0.9)
    paint("eyelids", (0.2, 0.11, 0.08), 0.5)
    paint("scalp", (0.05, 0.03, 0.02), 1.0)
    part = np.zeros(model.vertex_count, np.uint8)
    for index in range(1, len(PARTS)):
        part[np.unique(model.triangles[model.triangle_part == index])] = index
    part[np.unique(model.triangles[model.triangle_part == 0])] = 0
    colour[part == PARTS.index("teeth")] = (0.6, 0.55, 0.45)
    colour[part == PARTS.index("mouth")] = (0.25, 0.05, 0.05)
    for side in (1, -1):
        ball = np.flatnonzero((part == PARTS.index("eyes")) & (model.mean[:, 0] * side > 0))
        if not len(ball):
            continue
        points = model.mean[ball]
        centre = 0.5 * (points.min(0) + points.max(0))
        away = np.linalg.norm((points - centre)[:, :2], axis=1)
        away[points[:, 2] < centre[2]] = 99
        colour[ball] = np.where((away < 2.5)[:, None], 0.01, np.where((away < 6.5)[:, None], 0.08, 0.62))
    return colour


def mitsuba_render(picture: HeadPicture, spp: int = 32) -> NDArray[np.uint8]:
    """A soft key light from the front and ambient, 8-bit sRGB (H, W, 3); `spp` paths a pixel."""
    from raytrace_face.backend import start

    mi = start()
    transform = mi.ScalarTransform4f
    bsdf = mi.load_dict(
        {
            "type": "twosided",
            "inner": {"type": "diffuse", "reflectance": {"type": "mesh_attribute", "name": "vertex_color"}},
        }
    )
    properties = mi.Properties()
    properties["bsdf"] = bsdf
    mesh = mi.Mesh("head", len(picture.vertices), len(picture.triangles), has_vertex_normals=True, props=properties)
    mesh.add_attribute("vertex_color", 3, np.ascontiguousarray(picture.albedo, np.float32).ravel())
    parameters = mi.traverse(mesh)
    parameters["vertex_positions"] = np.ascontiguousarray(picture.vertices, np.float32).ravel()
    parameters["vertex_normals"] = np.ascontiguousarray(picture.normals, np.float32).ravel()
    parameters["faces"] = np.ascontiguousarray(picture.triangles, np.uint32).ravel()
    parameters.update()
    side = picture.eye - picture.target
    side = side / np.linalg.norm(side)
    light = picture.target + 900 * side + np.array([250.0, 450.0, 0.0])
    scene = mi.load_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 3},
            "head": mesh,
            "sensor": {
                "type": "perspective",
                "fov": picture.fov_deg,
                "to_world": transform().look_at(
                    origin=picture.eye.tolist(), target=picture.target.tolist(), up=[0, 1, 0]
                ),
                "film": {
                    "type": "hdrfilm",
                    "width": picture.size,
                    "height": picture.size,
                    "rfilter": {"type": "gaussian"},
                },
            },
            "ambient": {"type": "constant", "radiance": 0.5},
            "key": {
                "type": "rectangle",
                "to_world": transform().look_at(origin=light.tolist(), target=picture.target.tolist(), up=[0, 1, 0])
                @ transform().scale(300),
                "emitter": {"type": "area", "radiance": 6.0},
            },
        }
    )
    linear = np.clip(np.array(mi.render(scene, spp=spp))[..., :3], 0, 1)
    encoded = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-6) ** (1 / 2.4) - 0.055)
    return (encoded * 255 + 0.5).astype(np.uint8)


def pictures(model: FaceModel, identity: NDArray[np.floating], size: int = 384) -> list[HeadPicture]:
    """The head of one identity from all `VIEWS_DEG`."""
    vertices = model.vertices(identity, np.zeros(len(model.expression_names)))
    normals = vertex_normals(vertices, model.triangles, model.weld)
    albedo = calibration_albedo(model)
    target = np.array([0.0, -25.0, 20.0])
    found = []
    for yaw, pitch in np.radians(VIEWS_DEG):
        direction = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
        found.append(
            HeadPicture(vertices, normals, model.triangles, albedo, target + 700 * direction, target, 24.0, size)
        )
    return found


def hits(picture: HeadPicture, pixels: NDArray[np.floating]) -> tuple[NDArray[np.int64], Array]:
    """First triangle (N,) and barycentrics (N, 3) under pixels (N, 2); triangle -1 where the ray misses.

    Plain NumPy: project all triangles and test each pixel against those around it, tile by tile.
    """
    corners = picture.project(picture.vertices)[picture.triangles]
    depth = np.linalg.norm(picture.vertices - picture.eye, axis=1)[picture.triangles]
    low, high = corners.min(1), corners.max(1)
    triangle = np.full(len(pixels), -1)
    weights = np.zeros((len(pixels), 3), np.float32)
    tile = np.floor(np.asarray(pixels, np.float64) / HIT_TILE)
    for corner in np.unique(tile[np.isfinite(tile).all(1)], axis=0):
        around = np.flatnonzero(((low <= (corner + 1) * HIT_TILE) & (high >= corner * HIT_TILE)).all(1))
        for n in np.flatnonzero((tile == corner).all(1)):
            p = np.asarray(pixels[n], np.float64)
            near = around[((low[around] <= p) & (p <= high[around])).all(1)]
            if not len(near):
                continue
            a, b, c = corners[near, 0], corners[near, 1], corners[near, 2]
            u, v, w = b - a, c - a, p - a
            det = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
            det = np.where(np.abs(det) < 1e-12, 1e-12, det)
            s = (w[:, 0] * v[:, 1] - w[:, 1] * v[:, 0]) / det
            t = (u[:, 0] * w[:, 1] - u[:, 1] * w[:, 0]) / det
            bary = np.stack([1 - s - t, s, t], 1)
            # Triangles seen from the front have negative area in pixel coordinates (y down).
            inside = (bary >= -1e-6).all(1) & (det < 0)
            if inside.any():
                distance = np.where(inside, (depth[near] * bary).sum(1), np.inf)
                best = int(np.argmin(distance))
                triangle[n], weights[n] = near[best], bary[best]
    return triangle, weights


def calibrate(
    model: FaceModel, detect: Detect, render: Render = mitsuba_render, identities: int = 6, seed: int = 0
) -> FaceModel:
    """The model with a new landmark embedding.

    Every mark is carried to the mean shape by its triangle and barycentrics, so that identities can be averaged;
    left and right are averaged through the network's own symmetry.
    """
    rng = np.random.default_rng(seed)
    shapes = [np.zeros(len(model.identity))]
    shapes += [rng.normal(size=len(model.identity)) for _ in range(identities)]
    samples: list[NDArray[np.float64]] = []
    for shape in shapes:
        for picture in pictures(model, shape):
            found = detect(render(picture))
            if found is not None:
                samples.append(_on_mean(model, picture, found[:LANDMARKS]))
    if len(samples) < 4:
        raise ValueError(f"the network saw a face in only {len(samples)} of {len(shapes) * len(VIEWS_DEG)} renders")
    return embed(model, samples)


def _on_mean(model: FaceModel, picture: HeadPicture, marks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Marks (N, 2) as points (N, 3) on the mean, NaN where they miss the skin or graze it.

    Marks of the lids that fall just beside them on the eyeball count for the nearest skin vertex.
    """
    skin = PARTS.index("skin")
    triangle, weights = hits(picture, marks)
    corners = model.triangles[triangle]
    points = np.einsum("nc,ncd->nd", weights, model.mean[corners]).astype(np.float64)
    normal = np.einsum("nc,ncd->nd", weights, picture.normals[corners])
    facing = -(normal * picture.rays(marks)).sum(1)
    part = model.triangle_part[triangle]
    on_ball = (triangle >= 0) & (part == PARTS.index("eyes"))
    if on_ball.any():
        own = np.unique(model.triangles[model.triangle_part == skin])
        seen = np.einsum("nc,ncd->nd", weights, picture.vertices[corners])[on_ball]
        distance, nearest = cKDTree(picture.vertices[own]).query(seen)
        points[on_ball] = np.where((distance < SNAP_MM)[:, None], model.mean[own[nearest]], np.nan)
    points[(triangle < 0) | ((part != skin) & ~on_ball) | (facing < 0.25)] = np.nan
    return points


def mirror_pairs(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """The landmark at the mirrored place of each of (N, 3) nearly symmetric points; NaN points map to themselves."""
    good = np.flatnonzero(np.isfinite(points).all(1))
    cost = cdist(points[good], points[good] * np.array([-1.0, 1.0, 1.0])) ** 2
    row, column = linear_sum_assignment(cost + cost.T)
    pairs = np.arange(len(points))
    pairs[good[row]] = good[column]
    # Keep only what is mutual.
    return np.where(pairs[pairs] == np.arange(len(points)), pairs, np.arange(len(points)))


def embed(model: FaceModel, samples: Sequence[NDArray[np.float64]]) -> FaceModel:
    """Embedding from mark samples on the mean, each (468, 3) with NaN for unusable ones."""
    stack = np.stack(samples)
    seen = np.asarray(np.isfinite(stack).all(2))
    with np.errstate(all="ignore"):
        middle = np.array(
            [
                np.median(stack[seen[:, n], n], axis=0) if seen[:, n].any() else [np.nan] * 3
                for n in range(stack.shape[1])
            ]
        )
        spread = np.array(
            [
                1.25 * np.median(np.linalg.norm(stack[seen[:, n], n] - middle[n], axis=1))
                if seen[:, n].any()
                else np.nan
                for n in range(stack.shape[1])
            ]
        )
    pairs = mirror_pairs(middle)
    middle = 0.5 * (middle + middle[pairs] * np.array([-1.0, 1.0, 1.0]))
    spread = np.sqrt(0.5 * (spread**2 + spread[pairs] ** 2))
    enough = (seen.mean(0) > 0.3) & (seen.mean(0)[pairs] > 0.3) & np.isfinite(middle).all(1)
    enough &= np.nan_to_num(spread, nan=np.inf) < SIGMA_LIMIT_MM
    enough[list(INNER_LIPS)] = False
    index = np.flatnonzero(enough)
    skin = np.flatnonzero(model.triangle_part == PARTS.index("skin"))
    centres = model.mean[model.triangles[skin]].mean(1)
    candidates = skin[cKDTree(centres).query(middle[index], k=24)[1]]
    triangle, weights = closest_on_triangles(middle[index], model.mean, model.triangles, candidates)
    return replace(
        model,
        landmark_index=index.astype(np.int32),
        landmark_triangle=triangle.astype(np.int32),
        landmark_barycentric=weights,
        landmark_sigma_mm=np.maximum(spread[index], SIGMA_FLOOR_MM).astype(np.float32),
    )


def network_detector() -> Detect:
    """The package's own landmark network as a `Detect`."""
    from raytrace_face.capture.landmarks import detect_faces

    def detect(image: NDArray[np.uint8]) -> NDArray[np.floating] | None:
        faces = detect_faces(image)
        return faces[0].landmarks_px if faces else None

    return detect
