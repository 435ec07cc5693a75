"""Joints as ARKit's units: the straight line from the neutral to a turned jaw or eye.

The face model is linear and joints are not. A unit is the chord of a joint's arc: exact at weights 0 and 1, and inside
the arc between them. `chord_error_mm` says by how much.
"""

from __future__ import annotations

import numpy as np

from raytrace_face.face.formats.skinning import Floats, Skeleton, posed

JAW, LEFT_EYE, RIGHT_EYE = "jaw", "left eye", "right eye"

OPEN_DEG = 22.5
"""Jaw pitch of jawOpen: pi / 8, up to where FLAME's authors show the jaw; between ICT-FaceKit's unit (17.5 degrees) and
the embedded model's (25), so that a weight means the same in all of them. Opens incisors 90 mm from it by 35 mm."""
SIDEWAYS_DEG = 4.5
"""Jaw yaw of jawLeft and jawRight: moves the incisors by 7 mm, as the embedded model's units do (ICT-FaceKit's: 6)."""
GAZE_DEG = 30.0
"""Turn of the eyeball at weight 1 of an eyeLook unit: beyond it people turn their heads."""

TURNS: tuple[tuple[str, str, tuple[float, float, float]], ...] = (
    ("jawOpen", JAW, (OPEN_DEG, 0, 0)),
    ("jawLeft", JAW, (0, SIDEWAYS_DEG, 0)),
    ("jawRight", JAW, (0, -SIDEWAYS_DEG, 0)),
    ("eyeLookUpLeft", LEFT_EYE, (-GAZE_DEG, 0, 0)),
    ("eyeLookDownLeft", LEFT_EYE, (GAZE_DEG, 0, 0)),
    ("eyeLookInLeft", LEFT_EYE, (0, -GAZE_DEG, 0)),
    ("eyeLookOutLeft", LEFT_EYE, (0, GAZE_DEG, 0)),
    ("eyeLookUpRight", RIGHT_EYE, (-GAZE_DEG, 0, 0)),
    ("eyeLookDownRight", RIGHT_EYE, (GAZE_DEG, 0, 0)),
    ("eyeLookInRight", RIGHT_EYE, (0, GAZE_DEG, 0)),
    ("eyeLookOutRight", RIGHT_EYE, (0, -GAZE_DEG, 0)),
)
"""Unit, joint, rotation vector in degrees: x to the face's own left, y up, z forward, so that +x pitches down."""


def _turned(neutral: Floats, skeleton: Skeleton, joint: int, degrees: tuple[float, ...], share: float) -> Floats:
    pose = np.zeros((len(skeleton.joints), 3))
    pose[joint] = share * np.radians(degrees)
    return posed(neutral, skeleton, pose) - neutral


def units(neutral: Floats, skeleton: Skeleton, joints: dict[str, int]) -> tuple[tuple[str, ...], Floats]:
    """Names (E,) and displacements (E, V, 3) mm at weight 1 of the units of those joints that are there."""
    names = tuple(name for name, joint, _ in TURNS if joint in joints)
    moves = [_turned(neutral, skeleton, joints[j], degrees, 1.0) for _, j, degrees in TURNS if j in joints]
    return names, np.array(moves).reshape(len(names), len(neutral), 3)


def moving(skeleton: Skeleton, joints: dict[str, int]) -> dict[str, int]:
    """The joints that some vertex follows at all: a file may have bound all of them to others."""
    return {name: k for name, k in joints.items() if skeleton.weights[:, k].max() > 0.1}


def chord_error_mm(neutral: Floats, skeleton: Skeleton, joints: dict[str, int]) -> dict[str, float]:
    """Greatest distance [mm] between half a unit and the joint turned half-way, of each unit.

    For a rigid part at radius r and a turn by a it is r (1 - cos(a / 2)).
    """
    errors = {}
    for name, joint, degrees in TURNS:
        if joint in joints:
            half, whole = (_turned(neutral, skeleton, joints[joint], degrees, share) for share in (0.5, 1.0))
            errors[name] = float(np.linalg.norm(half - whole / 2, axis=1).max())
    return errors


def limits(neutral: Floats, skeleton: Skeleton, joints: dict[str, int]) -> tuple[str, ...]:
    """What a user must know of these units, a line each."""
    errors = chord_error_mm(neutral, skeleton, joints)
    if not errors:
        return ()
    worst = ", ".join(f"{name} {error:.1f} mm" for name, error in sorted(errors.items(), key=lambda e: -e[1])[:2])
    return (
        f"joints move vertices along straight lines: half-way, these lie inside the arc by up to {worst}",
        "lids do not follow the gaze",
    )
