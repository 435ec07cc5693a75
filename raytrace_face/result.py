"""What a reconstruction is, and its folder on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
import numpy as np

from lightstage.rig import StageLights
from raytrace_face.config import Config
from raytrace_face.types import Array, Camera, FaceParams, Maps, Window


@dataclass(frozen=True)
class Pictures:
    """Images on the fit window, (S, S, 3) or (S, S), float32, linear; rows from the top."""

    photo: Array
    """(S, S, 3) the photo on the window."""
    render: Array
    """(S, S, 3) re-rendering of the reconstruction; black outside the head."""
    stage1: Array
    """(S, S, 3) re-rendering after stage 1 (statistical albedo)."""
    shading: Array
    """(S, S, 3) diffuse irradiance / pi with shadows: what white skin would look like."""
    shadow: Array
    """(S, S) total self-shadow: shaded luminance with visibility over without, 1 = no shadow."""
    light_shadow: Array
    """(L, S, S) visibility of each light of the stage, 1 = visible; lights that are off are all 1."""
    normals: Array
    """(S, S, 3) unit shading normals in the camera frame, 0 outside the head."""
    diffuse: Array
    """(S, S, 3) diffuse albedo seen in the window."""
    specular: Array
    """(S, S) F0 seen in the window."""
    roughness: Array
    """(S, S) roughness seen in the window."""
    confidence: Array
    """(S, S) confidence of the reflectance seen in the window."""
    mask: Array
    """(S, S) weight of the pixel in the fit, [0, 1]."""


@dataclass(frozen=True)
class Reconstruction:
    """A face out of a photo: geometry, reflectance, camera, light and self-shadows."""

    model_name: str
    """Name of the face model the coefficients belong to."""
    camera: Camera
    """Camera of the whole photo."""
    window: Window
    """Region of the photo that was fitted."""
    face: FaceParams
    lights: StageLights
    """The light stage, head frame."""
    ambient_sh: Array
    """(9, 3) radiance of the surroundings, order-2 SH, head frame."""
    dominant_light: Array
    """(3,) unit vector to the strongest light, camera frame."""
    maps: Maps
    statistical_diffuse: Array
    """(T, T, 3) diffuse albedo of stage 1, under the statistical prior."""
    pictures: Pictures
    landmarks_px: Array
    """(478, 2) detected landmarks in photo pixels."""
    photo_name: str
    photo_sha256: str
    config: Config
    timings: dict[str, float]
    """Seconds by phase."""
    metrics: dict[str, float]
    """Figures of the fit: psnr_stage1_db, psnr_db, landmark_rms_px, ..."""
    warnings: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    """Loss curves by stage."""

    def dominant_light_head(self) -> Array:
        """(3,) unit vector to the strongest light, head frame."""
        return self.face.T_camera_head[:3, :3].T @ self.dominant_light

    def dominant_light_angles(self) -> tuple[float, float]:
        """Azimuth (positive = from the image's right) and elevation of the strongest light in degrees, camera frame."""
        x, y, z = (float(v) for v in self.dominant_light)
        return float(np.degrees(np.arctan2(x, z))), float(np.degrees(np.arcsin(np.clip(y, -1, 1))))
