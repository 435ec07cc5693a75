"""Geometry, reflectance, light and self-shadows of a face from one photograph, by differentiable ray tracing.

>>> import raytrace_face                                        # doctest: +SKIP
>>> face = raytrace_face.reconstruct("portrait.jpg")            # doctest: +SKIP
>>> face.save("portrait_face")                                  # doctest: +SKIP

Importing the package loads neither Mitsuba nor torch and changes no global state; names are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raytrace_face.capture.photo import load_photo
    from raytrace_face.config import Config
    from raytrace_face.recover import reconstruct
    from raytrace_face.result import Reconstruction

__all__ = ["Config", "Reconstruction", "__version__", "load_photo", "reconstruct"]

try:
    __version__ = metadata.version("raytrace-face")
except metadata.PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

_HOME = {
    "Config": "raytrace_face.config",
    "Reconstruction": "raytrace_face.result",
    "load_photo": "raytrace_face.capture.photo",
    "reconstruct": "raytrace_face.recover",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
