"""Pictures of a result that has none, or other ones: its window traced under its light."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from raytrace_face.backend import start
from raytrace_face.pictures import Pictures
from raytrace_face.types import Glimpse

if TYPE_CHECKING:
    from raytrace_face.fit.observation import Observation
    from raytrace_face.result import Reconstruction


def retraced(result: Reconstruction, observation: Observation, seed: int = 0) -> Pictures:
    """Trace all pictures of a result.

    Args:
        observation: what stands for the photo on the window, and its pixels that count.
    """
    start(result.config.device, result.config.deterministic)
    from raytrace_face.fit.stage1 import Setting
    from raytrace_face.fit.window import compose, light_window, pictures
    from raytrace_face.tracer.scene import HeadScene

    model, maps, config = result.face_model(), result.maps, result.config.resolved()
    head = HeadScene(model, result.vertices())
    nothing: Any = None  # of the setting of a fit only head and skin are needed here
    setting = Setting(
        model, nothing, head, nothing, nothing, config, nothing, maps.specular[..., 0], maps.roughness
    )  # fmt: skip
    lit = light_window(
        setting, observation, result.camera, result.face, result.lights, result.ambient_sh, config.stage2.samples, seed
    )
    plain = replace(maps, diffuse=result.statistical_diffuse)
    first, last = (compose(lit, some, maps.roughness) for some in (plain, maps))
    return pictures(lit, observation, maps, first, last, result.face.T_camera_head)


def retraced_glimpse(result: Reconstruction, glimpse: Glimpse) -> Pictures:
    """All pictures of a result that kept a glimpse of its photo; the face is segmented first."""
    start(result.config.device, result.config.deterministic)
    from raytrace_face.capture.glimpse import regard
    from raytrace_face.fit.observation import observe

    photo, seen = regard(glimpse, result.landmarks_px, result.window)
    observation = replace(observe(photo, seen, result.window.size), window=result.window)
    return retraced(result, observation, result.config.seed)


def completed(result: Reconstruction) -> Reconstruction:
    """The same result with its pictures and the figures that they give, to be saved with all its files."""
    start(result.config.device, result.config.deterministic)
    from raytrace_face.fit.window import psnr_db

    p = result.pictures
    before, after = (psnr_db(picture, p.photo, p.mask) for picture in (p.stage1, p.render))
    return replace(result, metrics={"psnr_stage1_db": before, "psnr_db": after, **result.metrics})
