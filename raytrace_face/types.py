"""The things that flow between the stages, as frozen dataclasses.

Conventions (docs/conventions.md): head frame right-handed, x to the image right when the face looks at the
camera, y up, z out of the face, millimetres, origin midway between the eyeball centres. Camera frame x right,
y up, looking along -z. Pixel (0, 0) is the top-left pixel and its centre lies at (0.5, 0.5). Colour is linear
Rec. 709, float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Camera:
    """Pinhole camera with square pixels."""

    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""
    focal_px: float
    """Focal length in pixels."""
    principal_px: tuple[float, float]
    """Principal point in pixels, (x to the right, y downwards) from the top-left corner."""

    def windowed(self, window: Window) -> Camera:
        """The same camera seen through a square crop resampled to `window.size` pixels."""
        s = window.size / window.side_px
        cx, cy = self.principal_px
        return Camera(
            window.size, window.size, self.focal_px * s, ((cx - window.left_px) * s, (cy - window.top_px) * s)
        )


@dataclass(frozen=True)
class Window:
    """A square region of the photo, resampled to `size` x `size` pixels for the fit."""

    left_px: float
    """Left edge in photo pixels (may be negative: outside is black and masked)."""
    top_px: float
    """Top edge in photo pixels."""
    side_px: float
    """Side length in photo pixels."""
    size: int
    """Side length after resampling, pixels."""

    def resized(self, size: int) -> Window:
        """The same region at another resolution."""
        return replace(self, size=size)

    def to_window(self, points_px: NDArray[np.floating]) -> NDArray[np.floating]:
        """Photo pixels (N, 2) -> window pixels (N, 2)."""
        return (points_px - np.array([self.left_px, self.top_px])) * (self.size / self.side_px)

    def to_photo(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """Window pixels (N, 2) -> photo pixels (N, 2)."""
        return points * (self.side_px / self.size) + np.array([self.left_px, self.top_px])


@dataclass(frozen=True)
class Photo:
    """A decoded photograph, upright, in linear light."""

    linear: Array
    """(H, W, 3) linear Rec. 709; 1.0 is the white of an 8-bit image."""
    saturated: NDArray[np.bool_]
    """(H, W) true where a channel clipped in the file."""
    name: str
    """File name without folder, for reports."""
    sha256: str
    """Hex digest of the file's bytes ("" for arrays)."""
    monochrome: bool
    """True when the three channels are equal: colour cannot be recovered."""
    focal_px: float | None = None
    """Focal length in pixels from EXIF, None when the file does not say."""
    codes: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    """(H, W, 3) the sRGB codes of `linear`, where the file held 8-bit ones: networks want them back."""

    @property
    def width(self) -> int:
        return int(self.linear.shape[1])

    @property
    def height(self) -> int:
        return int(self.linear.shape[0])


@dataclass(frozen=True)
class Sighting:
    """A face that the networks found in the photo."""

    landmarks_px: Array
    """(478, 2) in photo pixels."""
    landmark_depth_px: Array
    """(478,) relative depth in photo pixels, towards the camera negative (as the network gives it)."""
    blendshapes: dict[str, float]
    """52 ARKit expression weights in [0, 1] by name (camelCase, without "_neutral")."""
    score: float
    """Face presence in [0, 1]."""
    window: Window
    """Square crop around the face used for the fit."""
    faces_found: int
    """How many faces the detector found in the photo."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Capture(Sighting):
    """The same, and who is who in the window."""

    segmentation: Array = field(kw_only=True)
    """(S, S, 6) class probabilities on `window`: background, hair, body skin, face skin, clothes, other."""


@dataclass(frozen=True)
class Glimpse:
    """The photo round the fitted window in the window's pixels: what a result keeps so that pictures can come later."""

    linear: Array
    """(H, W, 3) linear light; it ends where the photo does."""
    saturated: NDArray[np.bool_]
    """(H, W) clipped pixels."""
    corner: NDArray[np.int64]
    """(2,) column and row of the window's top-left pixel; negative where the window reaches out of the photo."""


@dataclass(frozen=True)
class FaceParams:
    """Pose, identity and expression."""

    T_camera_head: Array
    """(4, 4) rigid transform, head frame mm -> camera frame mm."""
    identity: Array
    """(K,) coefficients in units of their standard deviation."""
    expression: Array
    """(E,) weights in [0, 1], order of `FaceModel.expression_names`."""


@dataclass(frozen=True)
class Maps:
    """Reflectance textures, UV origin bottom-left: row 0 of every array is the TOP row (v = 1)."""

    diffuse: Array
    """(T, T, 3) diffuse albedo, linear Rec. 709, [0, 1]."""
    specular: Array
    """(T, T, 3) Fresnel reflectance at normal incidence F0."""
    roughness: Array
    """(T, T) perceptual roughness r; the microfacet width is alpha = r**2 (as in glTF)."""
    confidence: Array
    """(T, T) in [0, 1]: how much of the texel is observed rather than filled by symmetry or the prior."""
