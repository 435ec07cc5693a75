"""The pictures of a result: traced with it, or when one of them is first asked for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from raytrace_face.types import Array, Glimpse

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction


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


class Untraced(Pictures):
    """Pictures that are traced when one of them is first asked for, and kept.

    They are those of the result that they were made with, also in what `dataclasses.replace` makes of it: an edited
    face keeps the pictures of its photo.
    """

    def __init__(self, glimpse: Glimpse) -> None:
        """Keep what the pictures will be traced from, and what is saved in their place."""
        self.__dict__["glimpse"] = glimpse

    def belong(self, result: Reconstruction) -> None:
        """Be the pictures of a result, unless they are those of another already."""
        self.__dict__.setdefault("result", result)

    @property
    def traced(self) -> bool:
        """Whether any has been asked for but the photo, which is there without."""
        return "render" in self.__dict__

    def __getattr__(self, name: str) -> Any:
        """A picture that is not there yet."""
        if name not in (f.name for f in fields(Pictures)):
            raise AttributeError(f"pictures have no {name!r}")
        if name == "photo":
            self.__dict__[name] = _photo(self.glimpse, self.result.window.size)
            return self.__dict__[name]
        from raytrace_face.retrace import retraced_glimpse

        self.__dict__.update(vars(retraced_glimpse(self.result, self.glimpse)))
        return self.__dict__[name]


def _photo(glimpse: Glimpse, size: int) -> Array:
    """(S, S, 3) the window of a glimpse, black outside the photo."""
    x, y = (int(v) for v in glimpse.corner)
    height, width = glimpse.linear.shape[:2]
    out = np.zeros((size, size, 3), np.float32)
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + size, width), min(y + size, height)
    out[top - y : bottom - y, left - x : right - x] = glimpse.linear[top:bottom, left:right]
    return out
