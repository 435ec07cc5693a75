"""The light of an edit: area lights, smooth surroundings and an environment map, all in the head frame."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lightstage import preset
from lightstage.environment import latlong_to_sh, latlong_to_stage, sh_basis
from lightstage.rig import AreaLights, Rig, StageLights, directional_lights, geodesic, rig, triangle_form_factor
from raytrace_face.capture.colour import luminance
from raytrace_face.errors import InputError

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction

F = NDArray[np.float64]

LAMP = (1.4, 0.10, 5.0)
"""Of a lamp given by direction: irradiance / pi, radiance of the surroundings, angular radius in degrees. They are
those of the studio presets, so that shadows are deep but not black."""
IRRADIANCE_BAND = np.repeat([1.0, 2 / 3, 1 / 4], [1, 3, 5])
"""Irradiance / pi over radiance of each spherical harmonic (Ramamoorthi and Hanrahan 2001, eq. 8, over pi)."""
ENVIRONMENT_SUFFIXES = (".exr", ".hdr")
SIZE_RANGE_DEG = (0.1, 45.0)
"""Angular radius of a lamp: half the sun's, and a wall."""


@dataclass(frozen=True)
class Illumination:
    """Everything that shines on a head, head frame, mm."""

    area: AreaLights
    ambient_sh: F
    """(9, 3) radiance of the surroundings."""
    environment: F | None = None
    """(H, W, 3) lat-long radiance in a frame of its own; row 0 is up, the middle column looks along +z."""
    R_head_environment: F | None = None
    """(3, 3) rotation, frame of the map -> head frame; None: they are the same."""

    def scaled(self, factor: float) -> Illumination:
        """Everything brighter by a factor."""
        sky = None if self.environment is None else self.environment * factor
        area = AreaLights(self.area.corners, self.area.radiance * factor)
        return replace(self, area=area, ambient_sh=self.ambient_sh * factor, environment=sky)

    def rotated(self, R: F) -> Illumination:
        """Everything turned about the head's origin by a rotation (3, 3)."""
        own = np.eye(3) if self.R_head_environment is None else self.R_head_environment
        area = AreaLights(self.area.corners @ R.T, self.area.radiance)
        return replace(self, area=area, ambient_sh=rotated_sh(self.ambient_sh, R), R_head_environment=R @ own)

    def white_card(self) -> float:
        """Luminance of a white matte card at the head's centre, turned to where it is brightest, without shadows."""
        towards = geodesic(2).vertices
        directions, irradiance = centre_irradiance(self.area)
        card = np.maximum(towards @ directions.T, 0) @ irradiance
        card += sh_basis(towards) @ (IRRADIANCE_BAND[:, None] * self.ambient_sh)
        if self.environment is not None:
            card += sh_basis(towards) @ (IRRADIANCE_BAND[:, None] * latlong_to_sh(two_to_one(self.environment)))
        return float(luminance(card.astype(np.float32)).max())


def centre_irradiance(area: AreaLights) -> tuple[F, F]:
    """Unit directions (L, 3) to area lights from the head's centre, and the irradiance / pi (L, 3) of each there."""
    middle = area.corners.mean(axis=1)
    directions = middle / np.maximum(np.linalg.norm(middle, axis=1, keepdims=True), 1e-9)
    return directions, area.radiance * triangle_form_factor(area.corners)[:, None]


def of_result(result: Reconstruction) -> Illumination:
    """The light that was fitted."""
    return Illumination(result.lights.area_lights(), np.asarray(result.ambient_sh, np.float64))


def seen_from(light: Illumination, source: Reconstruction, target: Reconstruction) -> Illumination:
    """The light of one head moved to another so that it stays where the camera sees it."""
    R_source, R_target = (r.face.T_camera_head[:3, :3].astype(np.float64) for r in (source, target))
    return light.rotated(R_target.T @ R_source)


def named(text: str, result: Reconstruction, rotate_deg: float = 0.0) -> Illumination:
    """The light that `--light` names, about as strong as the photo's own.

    A preset and an environment map stand about the face; a direction is the camera's, as `reconstruct` prints it. The
    new light is scaled to the photo's `white_card`, so that the face keeps the exposure of what surrounds it.

    Args:
        text: preset; FILE.exr or FILE.hdr (lat-long); "azimuth,elevation[,size]" in degrees, azimuth positive from the
            image's right, size the angular radius.
        rotate_deg: turn about the vertical, positive towards the image's right.

    Raises:
        InputError: it is none of these, or the file is no lat-long map.
    """
    turn = Rotation.from_euler("y", rotate_deg, degrees=True).as_matrix()
    R = result.face.T_camera_head[:3, :3].T.astype(np.float64)
    if Path(text).suffix.lower() in ENVIRONMENT_SUFFIXES:
        light = environment_map(Path(text)).rotated(turn)
    elif text in preset.names():
        area, ambient = preset.load(text)
        light = Illumination(area, ambient).rotated(turn)
    else:
        light = lamp(*_angles(text)).rotated(R @ turn)
    card = light.white_card()
    if card <= 0:
        raise InputError(f"light {text!r} is black: use another")
    return light.scaled(of_result(result).white_card() / card)


def lamp(azimuth_deg: float, elevation_deg: float, size_deg: float = LAMP[2]) -> Illumination:
    """One white lamp and a little white light from everywhere (`LAMP`); angles in degrees as in `lightstage.preset`."""
    area = directional_lights(preset.direction(azimuth_deg, elevation_deg)[None], size_deg)
    ambient = np.zeros((9, 3))
    ambient[0] = preset.UNIFORM_SH * LAMP[1]
    return Illumination(AreaLights(area.corners, area.radiance * LAMP[0]), ambient)


def environment_map(path: Path) -> Illumination:
    """The light of a lat-long EXR or HDR file, linear Rec. 709.

    Raises:
        InputError: the file cannot be read, or is not twice as wide as high.
    """
    from raytrace_face.capture.photo import load_radiance

    sky = load_radiance(path).astype(np.float64)
    height, width = sky.shape[:2]
    if abs(width - 2 * height) > 2:
        raise InputError(f"{path.name} has {width} x {height} pixels: a lat-long map is twice as wide as high")
    return Illumination(AreaLights(np.zeros((0, 3, 3)), np.zeros((0, 3))), np.zeros((9, 3)), sky)


def _angles(text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
        known = len(values) in (2, 3) and bool(np.isfinite(values).all())
    except ValueError:
        known = False
    if not known:
        near = difflib.get_close_matches(text.lower(), preset.names(), n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(
            f"light {text!r} is unknown: {meant}use one of {', '.join(preset.names())}, a lat-long FILE.exr or "
            "FILE.hdr, or azimuth,elevation[,size] in degrees"
        )
    low, high = SIZE_RANGE_DEG
    if not (abs(values[0]) <= 360 and abs(values[1]) <= 90 and low <= (*values, LAMP[2])[2] <= high):
        raise InputError(
            f"light {text!r}: azimuth must lie in [-360, 360], elevation in [-90, 90] and size in [{low}, {high}]"
        )
    return values


def rotated_sh(coefficients: NDArray[np.floating], R: F) -> F:
    """SH coefficients (9, 3) of the function turned by R: f'(w) = f(R^T w). Exact for order 2."""
    points = geodesic(1).vertices
    values = sh_basis(points @ R) @ coefficients
    return np.asarray(np.linalg.lstsq(sh_basis(points), values, rcond=None)[0], np.float64)


def two_to_one(sky: F) -> F:
    """(H, 2 H, 3) for a map whose width is off by a pixel or two: cropped or repeated at the seam."""
    return np.take(sky, np.arange(2 * len(sky)) % sky.shape[1], axis=1)


def on_stage(light: Illumination, rig_name: str) -> tuple[StageLights, F]:
    """The light stage nearest to a light, and the surroundings that stay smooth.

    Area lights go to the faces of the rig that their directions pass through (`lightstage.solve.condense`, with their
    mean angular radius); an environment map is divided among the faces, each pixel to the nearest. The irradiance at
    the head's centre is kept.
    """
    from lightstage.solve import condense

    directions, irradiance = centre_irradiance(light.area)
    size = float(np.average(angular_radius_deg(light.area), weights=irradiance.mean(1))) if len(directions) else 4.0
    if light.environment is None:
        return condense(rig(rig_name), directions, irradiance, size), light.ambient_sh
    stage = rig(rig_name)
    R = np.eye(3) if light.R_head_environment is None else light.R_head_environment
    share = latlong_to_stage(two_to_one(light.environment), stage.face_directions @ R)
    wide = float(np.degrees(np.arccos(1 - 2 / stage.count)))  # a disc of the solid angle of a face
    both = np.concatenate([stage.face_directions, directions]), np.concatenate([share, irradiance])
    return condense(stage, *both, wide, distance=1.0), light.ambient_sh


def angular_radius_deg(area: AreaLights) -> F:
    """(L,) radius of the disc of the same area, seen from the head's centre, degrees."""
    corners = area.corners
    surface = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return np.degrees(np.arctan(np.sqrt(surface / np.pi) / np.linalg.norm(corners.mean(axis=1), axis=1)))


def rotated_stage(lights: StageLights, R: F) -> StageLights:
    """The same stage turned about the head: its rig is turned, its parameters stay."""
    turned = Rig(lights.rig.name, lights.rig.vertices @ R.T, lights.rig.faces)
    return replace(lights, rig=turned)
