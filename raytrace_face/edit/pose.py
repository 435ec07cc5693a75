"""Another expression, pose or lens; the light stays where it is in the room."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from skimage.measure import label

from raytrace_face.capture.photo import FILM_DIAGONAL_MM
from raytrace_face.edit.composite import blend, composite, face_matte, outline_fade, resized
from raytrace_face.edit.illumination import of_result, rotated_stage, seen_from
from raytrace_face.edit.trace import surface, trace, window_camera
from raytrace_face.errors import InputError
from raytrace_face.face.camera import project, to_camera
from raytrace_face.face.model import PARTS
from raytrace_face.result import Reconstruction
from raytrace_face.types import Array, Camera

MOVED_PX = (0.5, 2.0)
"""How far a point of the skin moves, in pixels, for the photo's detail to begin to leave it and to have left it."""
FRESH_SHARE = 0.3
"""Share of an eye or a mouth that must be new for its rendering to take the photo's place: less is a lid that moves."""
FOCAL_RANGE_MM = (10.0, 1000.0)
"""Focal lengths on 35 mm film: from a fisheye's to a telescope's."""


def animated(
    result: Reconstruction,
    expression: Mapping[str, float] | None = None,
    yaw_deg: float = 0.0,
    pitch_deg: float = 0.0,
    roll_deg: float = 0.0,
    focal_mm: float | None = None,
) -> Reconstruction:
    """The face with another expression, turned, or through another lens; its pictures are still the old ones.

    Lamps and surroundings stay fixed to the room, so the head turns under them. A turn is about the middle between
    the eyes, by the camera's axes, on top of the pose in the photo. Another focal length moves the camera so that the
    head keeps its size and place in the picture.

    Args:
        expression: weights in [0, 1] by name that replace those of the photo; other names keep theirs.
        yaw_deg: positive turns the face to the image's right.
        pitch_deg: positive raises the face.
        roll_deg: positive leans the top of the head to the image's right.
        focal_mm: 35 mm equivalent, by the photo's diagonal.

    Raises:
        InputError: an unknown expression (with a suggestion), or a value outside its range.
    """
    face, camera, out = result.face, result.camera, result
    names = result.face_model().expression_names
    weights = np.array(face.expression, np.float32)
    for name, value in (expression or {}).items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            meant = f"did you mean {near[0]!r}?" if near else f"the model knows {', '.join(names)}"
            raise InputError(f"expression {name!r} is unknown: {meant}")
        if not 0 <= value <= 1:
            raise InputError(f"expression {name} is {value:g}: it must lie in [0, 1]")
        weights[names.index(name)] = value
    T = np.array(face.T_camera_head, np.float64)
    turn = (-pitch_deg, yaw_deg, -roll_deg)
    if not all(abs(angle) <= 180 for angle in turn):
        raise InputError(f"yaw, pitch and roll are {yaw_deg:g}, {pitch_deg:g}, {roll_deg:g}: use [-180, 180] degrees")
    if any(turn):
        T[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ T[:3, :3]
    if focal_mm is not None:
        low, high = FOCAL_RANGE_MM
        if not low <= focal_mm <= high:
            raise InputError(f"focal is {focal_mm:g} mm: it must lie in [{low:g}, {high:g}]")
        focal_px = focal_mm / FILM_DIAGONAL_MM * math.hypot(camera.width, camera.height)
        T[2, 3] *= focal_px / camera.focal_px
        camera = replace(camera, focal_px=focal_px)
    out = replace(result, camera=camera, face=replace(face, expression=weights, T_camera_head=T.astype(np.float32)))
    if any(turn):
        fixed = seen_from(of_result(result), result, out)
        R = out.face.T_camera_head[:3, :3].T.astype(np.float64) @ face.T_camera_head[:3, :3]
        out = replace(out, lights=rotated_stage(result.lights, R), ambient_sh=np.asarray(fixed.ambient_sh, np.float32))
    return out


def rendered(result: Reconstruction, *, size: int | None = None, spp: int = 64, seed: int = 0) -> tuple[Array, Array]:
    """The head on the fitted window over nothing: colour (S, S, 3), linear, not premultiplied, and coverage (S, S)."""
    camera = window_camera(result, size)
    picture = trace(result, None, camera, spp=spp, seed=seed)
    # how much of a pixel the head covers: rays through nine points of it
    thirds = (-1 / 3, 0.0, 1 / 3)
    cover = np.mean([_hit(result, camera, dx, dy) for dx in thirds for dy in thirds], axis=0)
    cover = np.maximum(cover, (picture.sum(axis=2) > 0) / 9).astype(np.float32)  # the rays of the picture may hit more
    # between the lips and under the lids one can look into the hollow head, but not through it
    cover[ndimage.binary_erosion(ndimage.binary_fill_holes(cover > 0))] = 1
    return picture / np.maximum(cover, np.float32(1e-6))[..., None], cover


def _hit(result: Reconstruction, camera: Camera, dx: float, dy: float) -> NDArray[np.bool_]:
    """(H, W) whether the ray through a point beside each pixel's centre, offset in pixels, hits the head."""
    cx, cy = camera.principal_px
    part = surface(result, replace(camera, principal_px=(cx - dx, cy - dy))).part
    return (part != 255).reshape(camera.height, camera.width)


def expressed_photo(
    before: Reconstruction,
    after: Reconstruction,
    photo: Array | None = None,
    *,
    size: int | None = None,
    spp: int = 64,
    seed: int = 0,
) -> Array:
    """The photo with another expression, of the same pose and camera: linear, as `composite` gives it.

    Where the skin moves, it takes the photo's detail along (at the resolution of the window); what was hidden before,
    as the inside of a mouth, is the rendering itself. Elsewhere the change between the renderings is laid over the
    photo, so that new shadows fall on skin that has not moved.
    """
    camera = window_camera(before, size)
    S = camera.width
    old, new = (trace(r, None, camera, spp=spp, seed=seed) for r in (before, after))
    g, g_before = surface(after, camera), surface(before, camera)
    was = project(camera, to_camera(before.face.T_camera_head, g.interpolate(before.vertices()).astype(np.float64)))
    now = project(camera, to_camera(after.face.T_camera_head, g.interpolate(after.vertices()).astype(np.float64)))
    head = g.part != 255
    low, high = MOVED_PX
    moved = np.where(head, np.clip((np.linalg.norm(was - now, axis=1) - low) / (high - low), 0, 1), 0)
    # what was hidden may not have moved: upper teeth behind closed lips; and an eye or a mouth is of one piece
    hidden = (head & (g.part != g_before.part)).reshape(S, S) | (moved.reshape(S, S) > 0.5)
    pieces = label((head & (g.part != PARTS.index("skin"))).reshape(S, S))
    share = ndimage.mean(hidden, pieces, np.arange(1, pieces.max() + 1))
    fresh = np.isin(pieces, 1 + np.flatnonzero(share > FRESH_SHARE))
    replaced = ndimage.gaussian_filter(np.maximum(moved.reshape(S, S), fresh).astype(np.float32), 0.7)
    matte = face_matte(before, S)
    rows, columns = (np.where(head, was[:, k] - 0.5, -9).reshape(S, S) for k in (1, 0))

    def carried_along(values: Array) -> Array:
        return np.asarray(ndimage.map_coordinates(values, (rows, columns), order=1, cval=0), np.float32)

    carried = carried_along(matte)
    photo_there, old_there = (
        np.stack([carried_along(x[..., c]) for c in range(3)], axis=2) for x in (resized(before.pictures.photo, S), old)
    )
    px_per_mm = camera.focal_px / float(-before.face.T_camera_head[2, 3])
    lively = blend(photo_there, old_there, new, np.ones_like(matte), np.zeros_like(matte), px_per_mm)
    lively = np.where(fresh[..., None], new, new + carried[..., None] * (lively - new))
    shown = np.where(head.reshape(S, S), np.maximum(matte, carried), 0) * outline_fade(head.reshape(S, S))
    # where nothing moves, the matte is the one of every other edit
    return composite(before, old, new, photo, np.where(replaced > 0, shown, matte), replaced, lively)
