"""Faces of a photo: 478 landmarks, 52 expression weights, and everything else the fit wants to know.

The landmark network looks at a square crop turned so that the eyes are level. It runs twice: on the detector's
square and on the one that its own landmarks suggest. Each time it sees several versions of the crop (shadows
lifted; as it is and mirrored; slightly turned and scaled) whose answers are averaged: that is what makes the
landmarks stable under hard light.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raytrace_face.capture.colour import luminance
from raytrace_face.capture.detector import Detection, Image8, Roi, candidates, crop, glance, lift_shadows
from raytrace_face.capture.networks import network, tables
from raytrace_face.capture.photo import codes_of
from raytrace_face.capture.segmentation import CLASSES, segment
from raytrace_face.errors import InputError, NoFaceError
from raytrace_face.types import Capture, Photo, Sighting, Window

INPUT = 256
"""Side of the landmark network's input, pixels."""
MIN_PRESENCE = 0.5
"""Crops with less are not faces."""
MIN_EYES_PX = 24.0
"""Smallest usable distance between the eyes, photo pixels."""
ROI_SCALE = 1.5
"""Side of the network's square over the extent of the landmarks (as the network was trained)."""
WINDOW_SCALE = 1.6
"""Side of the fitted window over the extent of the landmarks: forehead, chin and a margin."""

LARGE = 1 / 6
"""Extent of a face over the photo's longer side from which `sight` looks no further: the detector, which sees the
whole photo at once, would have found a larger one too. Four photos scaled to 0.16 to 0.3 gave landmarks within 0.7 %
of the eye distance of those of `capture` (mean 0.35 %); at 0.12, 15 pixels of the detector's, one was 7 % off."""

EYE_CORNERS = (33, 263)
"""Outer eye corners: on the image's left (the person's right eye), on the image's right."""
IRISES = (468, 473)
"""Iris centres, in the same order."""
NOSE_TIP = 1

View = tuple[float, float, bool]
"""A version of the crop: turned by so many radians, scaled by a factor, mirrored or not."""
FIRST_VIEWS: tuple[View, ...] = ((0.0, 1.0, False), (0.0, 1.0, True))
VIEWS: tuple[View, ...] = tuple((turn, 0.93, mirrored) for turn in (-0.12, 0.12) for mirrored in (False, True))
"""Versions whose landmarks are averaged in the first and in the second look. Chosen on Extended Yale B (one pose,
14 lights): 2.4 % of the eye distance RMS over all landmarks, 3.3 % for one plain look."""


@dataclass(frozen=True)
class Face:
    """One face of a photo, in photo pixels."""

    landmarks_px: NDArray[np.float32]
    """(478, 2)."""
    depth_px: NDArray[np.float32]
    """(478,) relative depth, towards the camera negative."""
    score: float
    """Face presence in [0, 1]."""
    spread_px: float
    """How far the averaged views disagree: root mean square over landmarks, photo pixels."""
    blendshapes: dict[str, float]
    """52 expression weights in [0, 1]: the 51 of ARKit that the network knows; `tongueOut` is 0."""

    @property
    def box(self) -> NDArray[np.float64]:
        """(4,) left, top, right, bottom of the landmarks."""
        points = self.landmarks_px.astype(np.float64)
        return np.concatenate([points.min(0), points.max(0)])

    @property
    def extent_px(self) -> float:
        """The larger side of `box`."""
        return float(np.max(self.box[2:] - self.box[:2]))

    @property
    def eyes_px(self) -> float:
        """Distance between the iris centres as seen from the front: depth included, pixels."""
        a, b = IRISES
        flat = self.landmarks_px[a] - self.landmarks_px[b]
        return float(math.hypot(*flat, self.depth_px[a] - self.depth_px[b]))

    @property
    def yaw_deg(self) -> float:
        """Turn of the head: positive when the face looks to the image's right, degrees."""
        left, right = EYE_CORNERS
        across = self.landmarks_px[right] - self.landmarks_px[left]
        return float(np.degrees(np.arctan2(self.depth_px[right] - self.depth_px[left], np.hypot(*across))))


def _roi_of(points: NDArray[np.float64]) -> Roi:
    """The network's square around landmarks (478, 2): along the eye line, 1.5 times their extent."""
    dx, dy = points[EYE_CORNERS[1]] - points[EYE_CORNERS[0]]
    angle = float(np.arctan2(dy, dx))
    c, s = math.cos(angle), math.sin(angle)
    turn = np.array([[c, -s], [s, c]])  # photo -> along the eyes, for row vectors
    local = points @ turn
    low, high = local.min(0), local.max(0)
    x, y = ((low + high) / 2) @ turn.T
    return Roi(float(x), float(y), ROI_SCALE * float(np.max(high - low)), angle)


def _look(image: Image8, roi: Roi, views: tuple[View, ...]) -> tuple[NDArray[np.float64], float, float]:
    """Landmarks (478, 3) in photo pixels averaged over `views`, mean presence, and the views' disagreement."""
    mirror = np.array(tables()["mirror"])
    points, logits = [], []
    for turn, scale, mirrored in views:
        square = Roi(roi.x, roi.y, roi.side * scale, roi.angle + turn)
        view = lift_shadows(crop(image, square, INPUT))
        if mirrored:
            view = view[:, ::-1]
        raw, logit, _ = network("landmarks")(view.astype(np.float32) / 255)
        p = raw.reshape(-1, 3).astype(np.float64)
        if mirrored:
            p[:, 0] = INPUT - p[:, 0]
            p = p[mirror]
        depth = p[:, 2:] * (square.side / INPUT)
        points.append(np.concatenate([square.to_photo(p[:, :2], INPUT), depth], 1))
        logits.append(float(logit.reshape(-1)[0]))
    stack = np.stack(points)
    mean = stack.mean(0)
    spread = float(np.sqrt(((stack - mean)[:, :468, :2] ** 2).sum(2).mean()))
    return mean, 1 / (1 + math.exp(-float(np.clip(np.mean(logits), -60, 60)))), spread


def _blendshapes(points: NDArray[np.float64]) -> dict[str, float]:
    """Expression weights by name from landmarks (478, 2) in pixels."""
    names = tables()["blendshape_names"]
    (weights,) = network("blendshapes")(points[tables()["blendshape_landmarks"]])
    found = {n: float(np.clip(w, 0, 1)) for n, w in zip(names, weights.reshape(-1), strict=True) if n != "_neutral"}
    return {**found, "tongueOut": 0.0}


def _face(image: Image8, roi: Roi) -> Face | None:
    first, presence, _ = _look(image, roi, FIRST_VIEWS)
    if presence < 0.02:
        return None
    points, presence, spread = _look(image, _roi_of(first[:, :2]), VIEWS)
    if presence < MIN_PRESENCE:
        return None
    return Face(
        points[:, :2].astype(np.float32),
        points[:, 2].astype(np.float32),
        presence,
        spread,
        _blendshapes(points[:, :2]),
    )


def face_near(photo_srgb: Image8, landmarks_px: NDArray[np.floating]) -> Face | None:
    """The face of an 8-bit sRGB photo (H, W, 3) whose landmarks (478, 2) are known roughly; None if none is seen."""
    return _face(np.ascontiguousarray(photo_srgb), _roi_of(np.asarray(landmarks_px, np.float64)))


def _inside(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Share of the smaller of two boxes that lies in the other."""
    inner = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    return float(np.prod(inner)) / max(float(min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2]))), 1e-9)


def detect_faces(photo_srgb: Image8) -> list[Face]:
    """All faces of an 8-bit sRGB photo (H, W, 3), the largest first; empty when there is none."""
    image = np.ascontiguousarray(photo_srgb)
    for found in candidates(image):
        if faces := _faces(image, found):
            return faces
    return []


def _faces(image: Image8, found: list[Detection]) -> list[Face]:
    """The detections that are faces, the largest first."""
    kept: list[Face] = []
    for detection in found:  # best first
        if any(_inside(detection.box, face.box) > 0.7 for face in kept):
            continue
        face = _face(image, detection.roi())
        if face is not None:
            kept = _without_doubles([*kept, face])
    return sorted(kept, key=lambda f: -f.extent_px)


def _without_doubles(faces: list[Face]) -> list[Face]:
    """Of faces that lie mostly within one another only the largest and surest."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda f: -f.score * f.extent_px):
        if all(_inside(face.box, other.box) < 0.5 for other in kept):
            kept.append(face)
    return kept


def window_around(landmarks_px: NDArray[np.floating], size: int) -> Window:
    """The square that the fit looks at: forehead to chin with a margin, a little more above than below.

    Args:
        landmarks_px: (N, 2) landmarks of the face, its outline among them, photo pixels.
    """
    points = np.asarray(landmarks_px, np.float64)
    low, high = points.min(0), points.max(0)
    side = WINDOW_SCALE * float(np.max(high - low))
    x, y = (low + high) / 2
    return Window(float(x - side / 2), float(y - side / 2 - 0.04 * side), float(side), size)


def _warnings(photo: Photo, face: Face, found: int) -> list[str]:
    """What may go wrong with this photo, one line each."""
    notes = []
    if found > 1:
        notes.append(f"{found} faces found; one was taken (--face 0..{found - 1} chooses, largest first)")
    if face.score < 0.8:
        notes.append(f"the face is uncertain (presence {face.score:.2f}): check the landmarks")
    if abs(face.yaw_deg) > 40:
        notes.append(f"the head is turned by about {abs(face.yaw_deg):.0f} degrees: the far side is guessed")
    if min(face.blendshapes["eyeBlinkLeft"], face.blendshapes["eyeBlinkRight"]) > 0.6:
        notes.append("the eyes are closed: gaze and eye colour cannot be seen")
    if photo.monochrome:
        notes.append("the photo is monochrome: skin colour comes from the prior")
    points = face.landmarks_px.astype(int)
    inside = (points >= 0).all(1) & (points[:, 0] < photo.width) & (points[:, 1] < photo.height)
    if inside.mean() < 0.95:
        notes.append(f"{100 * (1 - inside.mean()):.0f} % of the face lies outside the photo")
    if inside.any():
        x, y = points[inside].T
        level = float(np.percentile(luminance(photo.linear[y, x]), 90))
        if level < 0.03:
            notes.append(f"the face is dark (brightest tenth from {level:.3f} of white): expect noise")
        clipped = float(photo.saturated[y, x].mean())
        if clipped > 0.1:
            notes.append(f"{100 * clipped:.0f} % of the face is overexposed")
    if face.spread_px > 0.05 * face.eyes_px:
        notes.append(f"the landmarks are unsure ({100 * face.spread_px / face.eyes_px:.0f} % of the eye distance)")
    return notes


def covered_mouth(seen: Sighting, segmentation: NDArray[np.floating]) -> bool:
    """Whether something lies over the mouth, by the classes (S, S, 6) of the window."""
    mouth = seen.landmarks_px[[0, 17, 61, 291, 199, 2]]
    at = seen.window.to_window(mouth).astype(int).clip(0, seen.window.size - 1)
    skin = segmentation[at[:, 1], at[:, 0]][:, [CLASSES.index("face skin"), CLASSES.index("hair")]].sum(1)
    return float(np.median(skin)) < 0.3


def sight(photo: Photo, size: int = 256) -> Sighting:
    """The largest face of a photo in a quarter of the time of `capture`: not segmented, and small ones not looked for.

    A face that spans LARGE of the photo's longer side is found from the whole photo alone; its landmarks are those of
    `capture` within their noise. Otherwise the search is that of `capture`. `faces_found` counts the large ones only.
    Raises as `capture`.
    """
    _check_size(size)
    image = np.ascontiguousarray(codes_of(photo))
    faces = _faces(image, glance(image))
    if not faces or faces[0].extent_px < LARGE * max(photo.width, photo.height):
        faces = detect_faces(image)
    return _sighting(photo, faces, None, size)


def capture(photo: Photo, face: int | None = None, size: int = 256) -> Capture:
    """Find a face, its landmarks, expression and segmentation.

    `face` counts from the largest, 0; None takes the largest. `size` is the side of the fitted window, pixels.
    Raises NoFaceError when there is no such face, InputError when it is too small to fit.
    """
    _check_size(size)
    return segmented(photo, _sighting(photo, detect_faces(codes_of(photo)), face, size))


def segmented(photo: Photo, seen: Sighting, mirrored: bool = True) -> Capture:
    """What was seen of a photo, with the segmentation (`segment`) of its window."""
    classes = segment(photo.linear, seen.window, seen.landmarks_px, mirrored)
    notes = seen.warnings
    if covered_mouth(seen, classes):
        notes = (*notes, "the mouth seems to be covered: the lower face is guessed")
    return Capture(**{**vars(seen), "warnings": notes}, segmentation=classes)


def _check_size(size: int) -> None:
    if size < 16:
        raise InputError(f"window size {size} is too small: choose at least 16 pixels")


def _sighting(photo: Photo, faces: list[Face], face: int | None, size: int) -> Sighting:
    """One of the faces that were found, the largest first, with what may go wrong with it."""
    where = photo.name or "the photo"
    if not faces:
        raise NoFaceError(f"no face found in {where}: use a photo with one face, upright and at least 60 pixels wide")
    index = 0 if face is None else face
    if not 0 <= index < len(faces):
        raise NoFaceError(
            f"face {index} does not exist: {len(faces)} found in {where}; choose 0..{len(faces) - 1} (largest first)"
        )
    chosen = faces[index]
    if chosen.eyes_px < MIN_EYES_PX:
        raise InputError(
            f"the face in {where} is too small: {chosen.eyes_px:.0f} pixels between the eyes, "
            f"at least {MIN_EYES_PX:.0f} are needed; use a larger version of the photo"
        )
    notes = _warnings(photo, chosen, len(faces))
    if face is not None and len(faces) > 1:
        notes = notes[1:]  # the user has chosen: no need to say that there are several
    return Sighting(
        landmarks_px=chosen.landmarks_px,
        landmark_depth_px=chosen.depth_px,
        blendshapes=chosen.blendshapes,
        score=chosen.score,
        window=window_around(chosen.landmarks_px, size),
        faces_found=len(faces),
        warnings=tuple(notes),
    )
