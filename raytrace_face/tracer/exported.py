"""Rendering an exported scene with Mitsuba's own path tracer, to hold our tracer against it."""

from __future__ import annotations

from pathlib import Path

import mitsuba as mi
import numpy as np

from raytrace_face.types import Array


def render_file(path: Path, spp: int, seed: int) -> Array:
    """Picture (H, W, 3) of a scene file, linear; `raytrace_face.backend.start` registers the skin BSDF before."""
    return np.array(mi.render(mi.load_file(str(path)), spp=spp, seed=seed))[..., :3].astype(np.float32)
