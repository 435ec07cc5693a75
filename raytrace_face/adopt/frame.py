"""Where the face is in a model whose file says only that y is up and z comes out of the face.

The landmark network looks at the mean from a few sides; its marks, cast back onto the surface, are laid on those of the
embedded model by a rigid motion (Umeyama 1991). This is good to a degree or two; `correspond` makes it exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raytrace_face.errors import ModelError
from raytrace_face.face.formats.raw import RawModel
from raytrace_face.face.mesh import Floats, Index, rigid_fit, vertex_normals
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.fit.embedding import LANDMARKS, Detect, HeadPicture, Render, hits
from raytrace_face.types import Array

SKIN_COLOUR = (0.42, 0.26, 0.19)
VIEWS_DEG = ((0.0, 0.0), (-18.0, 0.0), (18.0, 0.0), (0.0, -12.0), (0.0, 12.0))
"""(yaw, pitch) of the cameras: near enough to the front for marks to be good. The first round takes three."""
FOV_DEG = 24.0
SIZE = 384
FACE_HEIGHT_MM = 330.0
"""Height of the second round's pictures: the face fills half, as in `fit.embedding.pictures`."""
SCALE_LIMIT = 0.15
"""Mean faces of all published models agree to 5 %; a wrong unit is off by 10 or more."""
GRAZING = 0.3
"""Marks on surface turned further than this cosine from the camera are left out."""
FEWEST_MARKS = 100


@dataclass(frozen=True)
class Frame:
    """A rigid motion into the head frame: p_head = rotation @ p_raw + shift."""

    rotation: Floats
    """(3, 3)"""
    shift: Floats
    """(3,) mm"""

    def points(self, raw: NDArray[np.floating]) -> Floats:
        """Positions (..., 3) in the head frame."""
        return raw @ self.rotation.T + self.shift

    def fields(self, raw: NDArray[np.floating]) -> Array:
        """Displacements (..., 3) in the head frame."""
        return np.asarray(raw @ np.asarray(self.rotation.T, np.float32), np.float32)

    def then(self, rotation: Floats, shift: Floats) -> Frame:
        """This motion followed by another."""
        return Frame(rotation @ self.rotation, rotation @ self.shift + shift)


def find_frame(raw: RawModel, embedded: FaceModel, detect: Detect, render: Render) -> tuple[Frame, Floats]:
    """The rigid motion to the embedded model's frame, and the network's marks (468, 3) in it, NaN where unseen.

    Raises:
        ModelError: no face is seen in the renders of the mean, or it is not in mm.
    """
    # The size of the pictures is relative at first, so that a wrong unit is seen as such.
    low, high = raw.mean.min(0), raw.mean.max(0)
    centre, height = 0.5 * (low + high), 1.1 * float((high - low)[:2].max())
    marks = _marks(raw, centre, height, VIEWS_DEG[:3], detect, render)
    if raw.albedo is None:
        marks[colour_landmarks(embedded)] = np.nan
    scale, _, _ = _lay(marks, embedded)
    if abs(scale - 1) > SCALE_LIMIT:
        raise ModelError(
            f"the mean face of this {raw.format} model is {1 / scale:.3g} times as large as a face in mm: "
            "is the file in another unit?"
        )
    marks = _marks(raw, np.nanmedian(marks, axis=0), FACE_HEIGHT_MM, VIEWS_DEG, detect, render)
    if raw.albedo is None:
        marks[colour_landmarks(embedded)] = np.nan
    _, rotation, shift = _lay(marks, embedded)
    frame = Frame(rotation, shift)
    return frame, frame.points(marks)


def colour_landmarks(embedded: FaceModel) -> Index:
    """Landmarks that only colours can place: where no brows are seen, they and the forehead are 9 mm off."""
    weight = np.max([embedded.regions[name] for name in ("brows", "forehead", "scalp")], axis=0)
    corners = weight[embedded.triangles[embedded.landmark_triangle]]
    return embedded.landmark_index[(corners * embedded.landmark_barycentric).sum(1) > 0.1]


def _lay(marks: Floats, embedded: FaceModel) -> tuple[float, Floats, Floats]:
    """s, R, t that lay marks (468, 3) on the embedded landmarks; what fits badly counts little (Cauchy weights)."""
    source, target = marks[embedded.landmark_index], embedded.landmark_points(embedded.mean).astype(np.float64)
    seen = np.isfinite(source).all(1)
    source, target = source[seen], target[seen]
    sigma = embedded.landmark_sigma_mm[seen].astype(np.float64)
    weight = 1 / sigma**2
    for _ in range(10):
        scale = rigid_fit(source, target, weight, scale=True)[0]
        _, rotation, shift = rigid_fit(scale * source, target, weight)
        gap = ((scale * source @ rotation.T + shift - target) ** 2).sum(1) / sigma**2
        weight = 1 / sigma**2 / (1 + gap / max(float(np.median(gap)), 1.0))
    _, rotation, shift = rigid_fit(source, target, weight)
    return scale, rotation, shift


def _marks(
    raw: RawModel, centre: Floats, height: float, views: Sequence[tuple[float, float]], detect: Detect, render: Render
) -> Floats:
    """The network's marks (468, 3) on the raw mean: medians over views, NaN where fewer than two agree to see them.

    Args:
        centre: (3,) what the cameras look at.
        height: of the pictures there, in the model's own unit.
        views: (yaw, pitch) of the cameras, degrees.
    """
    # Rendered at one size whatever the unit: the lights of `mitsuba_render` stand at fixed distances.
    to_mm = FACE_HEIGHT_MM / height
    vertices = ((raw.mean - centre) * to_mm).astype(np.float32)
    normals = vertex_normals(vertices, raw.triangles)
    colour = _colour(raw)
    distance = 0.5 * FACE_HEIGHT_MM / np.tan(np.radians(FOV_DEG) / 2)
    found = []
    for yaw, pitch in np.radians(views):
        direction = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
        picture = HeadPicture(
            vertices, normals, raw.triangles, colour, distance * direction, np.zeros(3), FOV_DEG, SIZE
        )
        marks = detect(render(picture))
        if marks is not None:
            found.append(_cast(picture, marks[:LANDMARKS]))
    enough = max(2, len(found) // 2)
    seen = np.isfinite(np.array(found).reshape(-1, LANDMARKS, 3)).all(2).sum(0) >= enough
    if seen.sum() < FEWEST_MARKS:
        raise ModelError(
            f"no face was found on the mean of this {raw.format} model ({len(found)} of {len(views)} renders): "
            "its vertices must have y up and z coming out of the face"
        )
    out = np.full((LANDMARKS, 3), np.nan)
    out[seen] = np.nanmedian(np.array(found)[:, seen], axis=0)
    return out / to_mm + centre


def _cast(picture: HeadPicture, pixels: NDArray[np.floating]) -> Floats:
    """Points (N, 3) of the surface under pixels (N, 2); NaN where the ray misses or grazes."""
    triangle, weights = hits(picture, pixels)
    corners = picture.triangles[triangle]
    points = np.einsum("nc,ncd->nd", weights, picture.vertices[corners]).astype(np.float64)
    normal = np.einsum("nc,ncd->nd", weights, picture.normals[corners])
    points[(triangle < 0) | (-(normal * picture.rays(pixels)).sum(1) < GRAZING)] = np.nan
    return points


def _colour(raw: RawModel) -> Array:
    """(V, 3) the mean albedo where the model has one, else plain skin with whitish eyes and dark irises."""
    if raw.albedo is not None:
        return np.clip(raw.albedo.diffuse, 0.02, 0.9).astype(np.float32)
    colour = np.tile(np.array(SKIN_COLOUR, np.float32), (len(raw.mean), 1))
    if raw.triangle_part is None:
        return colour
    eyes = vertices_of(raw.triangles, raw.triangle_part, "eyes")
    if not len(eyes):
        return colour
    colour[eyes] = 0.55
    middle = raw.mean[eyes, 0].mean()
    for side in (raw.mean[eyes, 0] > middle, raw.mean[eyes, 0] <= middle):
        ball = eyes[side]
        points = raw.mean[ball]
        span = 0.5 * (points.max(0) - points.min(0))
        away = np.linalg.norm((points - points.min(0) - span)[:, :2], axis=1) / span[0]
        colour[ball[(away < 0.45) & (points[:, 2] > points[:, 2].min() + span[2])]] = 0.06
    return colour


def vertices_of(triangles: Index, part: NDArray[np.uint8], name: str) -> Index:
    """Vertices that triangles of a part use."""
    return np.unique(triangles[part == PARTS.index(name)])


def eye_centres(vertices: Floats, triangles: Index, part: NDArray[np.uint8]) -> Floats | None:
    """(2, 3) centres of the left (+x) and right eyeball, of least-squares spheres; None unless both are balls."""
    eyes = vertices_of(triangles, part, "eyes")
    centres = []
    for side in (1, -1):
        ball = vertices[eyes[side * vertices[eyes, 0] > 0]].astype(np.float64)
        if len(ball) < 20 or np.ptp(ball, axis=0).min() < BALL_MM:
            return None
        middle = ball.mean(0)
        # |p|^2 = 2 c.p + (r^2 - |c|^2) is linear in c and the rest.
        rows = np.concatenate([2 * (ball - middle), np.ones((len(ball), 1))], axis=1)
        centres.append(middle + np.linalg.lstsq(rows, ((ball - middle) ** 2).sum(1), rcond=None)[0][:3])
    return np.array(centres)


BALL_MM = 15.0
"""An eye part thinner than this is the visible patch of an eye, whose sphere is not well known."""
