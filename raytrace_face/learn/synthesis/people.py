"""Random people before a random camera: identity, expression, pose, lens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from raytrace_face.capture.landmarks import window_around
from raytrace_face.face.camera import project, to_camera
from raytrace_face.face.model import FaceModel
from raytrace_face.learn.crop import jittered
from raytrace_face.types import Array, Camera, FaceParams

CUT_SIGMA = 2.5
"""Largest identity coefficient, standard deviations."""
MOODS: tuple[tuple[float, dict[str, float]], ...] = (
    (0.20, {}),
    (0.20, {"mouthSmile": 0.9, "cheekSquint": 0.6, "mouthUpperUp": 0.5, "jawOpen": 0.1, "eyeSquint": 0.3}),
    (0.13, {"mouthSmile": 0.8, "cheekSquint": 0.4, "mouthDimple": 0.3}),
    (0.06, {"jawOpen": 0.9, "mouthLowerDown": 0.3}),
    (0.06, {"jawOpen": 0.5, "mouthFunnel": 0.6}),
    (0.05, {"mouthPucker": 0.9}),
    (0.05, {"browInnerUp": 0.9, "browOuterUp": 0.8, "eyeWide": 0.7, "jawOpen": 0.3}),
    (0.06, {"browDown": 0.9, "eyeSquint": 0.6, "noseSneer": 0.4, "mouthPress": 0.4}),
    (0.05, {"mouthFrown": 0.9, "browInnerUp": 0.7, "mouthShrugLower": 0.5}),
    (0.04, {"mouthRollLower": 0.7, "mouthRollUpper": 0.6, "mouthPress": 0.5}),
    (0.04, {"mouthStretch": 0.8, "jawOpen": 0.3, "mouthLowerDown": 0.6}),
    (0.02, {"cheekPuff": 0.9}),
    (0.02, {"jawLeft": 0.7, "mouthLeft": 0.6}),
    (0.02, {"jawRight": 0.7, "mouthRight": 0.6}),
)
"""Share of the people, and units that go together (ARKit names; without a side: on both). Portraits smile."""
DISTANCE_MM, DISTANCE_SIGMA, DISTANCE_RANGE_MM = 1100.0, 0.45, (300.0, 4000.0)
"""Camera distance, log-normal as the prior of the landmark fit: selfies at arm's length to telephoto."""
OFF_AXIS = 0.10
"""Standard deviation of the tangent between the optical axis and the head: most faces stand near the middle."""


@dataclass(frozen=True)
class Sitter:
    """A face before the camera of its crop."""

    face: FaceParams
    camera: Camera
    """Of the crop; the principal point may lie far outside."""
    landmarks_px: Array
    """(N, 2) landmarks of the model, crop pixels."""


def random_expression(names: tuple[str, ...], rng: np.random.Generator) -> Array:
    """(E,) weights in [0, 1]: one or two moods, a few stray units, lids and gaze."""
    units = {name: 0.0 for name in names}

    def add(unit: str, amount: float) -> None:
        for name in (unit, unit + "Left", unit + "Right"):
            if name in units:
                units[name] += amount * float(np.clip(rng.normal(1, 0.15), 0, 1.5))

    share = np.array([p for p, _ in MOODS]) / sum(p for p, _ in MOODS)
    for strength in (rng.uniform(0.2, 1.0), rng.uniform(0, 0.5) * (rng.random() < 0.3)):
        for unit, amount in MOODS[rng.choice(len(MOODS), p=share)][1].items():
            add(unit, strength * amount)
    for name in rng.choice([n for n in names if not n.startswith(("eye", "tongue"))], rng.integers(0, 5)):
        units[str(name)] += rng.uniform(0, 0.4)
    lids = rng.random()
    add("eyeBlink", rng.uniform(0.7, 1.0) if lids < 0.06 else rng.uniform(0, 0.45) if lids < 0.5 else 0.0)
    if rng.random() < 0.03:
        units[str(rng.choice(["eyeBlinkLeft", "eyeBlinkRight"]))] += 0.9
    across, up = rng.normal(0, 0.25, 2)  # positive: to the image's right, which is the person's left
    for side, inwards in (("Left", -across), ("Right", across)):
        units["eyeLookIn" + side] += max(inwards, 0)
        units["eyeLookOut" + side] += max(-inwards, 0)
        units["eyeLookUp" + side] += max(up, 0)
        units["eyeLookDown" + side] += max(-up, 0)
    return np.clip([units[name] for name in names], 0, 1).astype(np.float32)


def random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """(3, 3) turn of the head: three in four about straight on, the rest anywhere up to 60 degrees."""
    frontal = rng.random() < 0.75
    yaw = np.clip(rng.normal(0, 16), -60, 60) if frontal else rng.uniform(-60, 60)
    pitch = np.clip(rng.normal(0, 9), -25, 25)
    roll = np.clip(rng.normal(0, 8), -30, 30)
    return Rotation.from_euler("xyz", [pitch, yaw, roll], degrees=True).as_matrix()


def random_sitter(model: FaceModel, size: int, rng: np.random.Generator) -> Sitter:
    """A random face in a crop of `size` pixels that is placed as the landmark network would place it."""
    identity = np.clip(rng.normal(size=len(model.identity)), -CUT_SIGMA, CUT_SIGMA).astype(np.float32)
    expression = random_expression(model.expression_names, rng)
    points = model.landmark_points(model.vertices(identity, expression))
    distance = np.clip(DISTANCE_MM * np.exp(DISTANCE_SIGMA * rng.normal()), *DISTANCE_RANGE_MM)
    T = np.eye(4)
    T[:3, :3] = random_rotation(rng)
    T[:3, 3] = [*(distance * np.clip(rng.normal(0, OFF_AXIS, 2), -0.3, 0.3)), -distance]
    photo = Camera(1, 1, 1000.0, (0.0, 0.0))  # any focal length: the crop scales it away
    window = jittered(window_around(project(photo, to_camera(T, points)), size), rng)
    camera = photo.windowed(window)
    seen = project(camera, to_camera(T, points))
    return Sitter(FaceParams(T.astype(np.float32), identity, expression), camera, seen.astype(np.float32))
