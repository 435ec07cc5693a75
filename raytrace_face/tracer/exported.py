"""Rendering an exported scene with Mitsuba's own path tracer, to hold our tracer against it."""

from __future__ import annotations

from pathlib import Path

import drjit as dr
import mitsuba as mi
import numpy as np

from raytrace_face.types import Array


def render_file(path: Path, spp: int, seed: int) -> Array:
    """Picture (H, W, 3) of a scene file, linear; `raytrace_face.backend.start` registers the skin BSDF before."""
    threads = dr.thread_count()
    dr.set_thread_count(max(threads, 2))  # loading waits for ever for a second thread where there is only one
    scene = mi.load_file(str(path))
    dr.set_thread_count(threads)
    return np.array(mi.render(scene, spp=spp, seed=seed))[..., :3].astype(np.float32)
