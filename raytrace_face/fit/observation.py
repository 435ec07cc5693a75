"""What the fit looks at: the photo on a window, and how much each pixel counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raytrace_face.capture.colour import luminance
from raytrace_face.capture.segmentation import CLASSES, resample
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.tracer.render import GBuffer
from raytrace_face.types import Array, Camera, Capture, Photo, Window

GRAZING = 0.2
"""Cosine between normal and view below which a pixel is left out: there one pixel spans five times its skin."""


SATURATED_WEIGHT = 0.35
"""Weight of a clipped pixel: its value is only a lower bound, but leaving it out would hide the sunlit side."""


CLIPPED_FROM = 0.9
"""Share of the brightest value from which a channel of a saturated pixel is the one that clipped, as resampled."""


HAIR_MARGIN = 0.02
"""Border kept from hair, clothes and other things, over the side of the window: about 6 mm."""


@dataclass(frozen=True)
class Observation:
    """The photo on a window of S x S pixels."""

    image: Array
    """(S, S, 3) linear."""
    usable: Array
    """(S, S) in [0, 1]: inside the photo, not hair, clothes or other things; saturated pixels count less."""
    window: Window
    clipped: NDArray[np.bool_] | None = None
    """(S, S, 3) channels that clipped in the file: they are at least as bright as `image`. None: none did."""

    @property
    def size(self) -> int:
        return self.window.size


def observe(photo: Photo, capture: Capture, size: int) -> Observation:
    """Resample photo and segmentation to `size` pixels a side."""
    window = capture.window.resized(size)
    image, valid = resample(photo.linear, window)
    clipped, _ = resample(photo.saturated.astype(np.float32), window)
    seen = capture.window.size
    classes, _ = resample(capture.segmentation, Window(0, 0, seen, size))
    covered = np.sum([classes[..., CLASSES.index(name)] for name in ("hair", "clothes", "other")], axis=0)
    # strands reach beyond what the network calls hair, and would be painted on the forehead
    margin = 2 * max(round(HAIR_MARGIN * size), 1) + 1
    covered = ndimage.uniform_filter(ndimage.maximum_filter(covered, margin), margin)
    unsaturated = 1 - (1 - SATURATED_WEIGHT) * np.clip(2 * clipped[..., 0], 0, 1)
    usable = valid * unsaturated * np.clip(1.5 - 2 * covered, 0, 1)
    over = (clipped > 0) & (image > CLIPPED_FROM * float(photo.linear.max()))
    return Observation(image, usable.astype(np.float32), window, over)


def fit_weight(observation: Observation, g: GBuffer, model: FaceModel, brows: bool = False) -> Array:
    """(P,) weight in [0, 1] of every pixel in the fit: face skin that the photo shows well.

    Left out is a seam of one pixel round everything that is not the face, and the brows (hair: its shading says
    nothing of light and shape) unless asked for: the maps show them.
    """
    size = observation.size
    skin = (g.part == PARTS.index("skin")).reshape(size, size)
    region = np.clip(g.interpolate(model.regions["face"]), 0, 1).reshape(size, size)
    facing = ((g.normal * g.view).sum(axis=1) > GRAZING).reshape(size, size)
    inside = ndimage.binary_erosion(skin & facing & (region > 0.5), iterations=1)
    weight = inside * region * observation.usable
    if not brows and "brows" in model.regions:
        weight = weight * (1 - np.clip(g.interpolate(model.regions["brows"]), 0, 1).reshape(size, size))
    return weight.ravel().astype(np.float32)


def mean_luminance(observation: Observation, weight: NDArray[np.floating]) -> float:
    """Weighted mean luminance of the fitted pixels: the unit in which residuals are measured."""
    Y = luminance(observation.image).ravel()
    return float((Y * weight).sum() / max(float(weight.sum()), 1e-9))


def window_camera(camera: Camera, observation: Observation) -> Camera:
    """The photo's camera seen through the window."""
    return camera.windowed(observation.window)
