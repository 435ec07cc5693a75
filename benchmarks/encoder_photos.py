"""Photos without truth: how well the encoder's prediction explains them, beside the optimiser; and its times."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.common import seconds
from raytrace_face import panel
from raytrace_face.capture.colour import encode_u8, luminance
from raytrace_face.config import Config
from raytrace_face.face.camera import project, to_camera
from raytrace_face.measure.light import angle_deg
from raytrace_face.result import Reconstruction
from raytrace_face.types import Array, Photo

if TYPE_CHECKING:
    from raytrace_face.learn.predict import Predictor

PREVIEW = Config(quality="preview")
"""What both are traced with, so that their windows are the same."""
PASSES = 10
"""Timed looks at one photo, after one that warms up."""


@dataclass(frozen=True)
class Both:
    """One photo as the encoder and as the optimiser explain it."""

    name: str
    encoder: Reconstruction
    optimiser: Reconstruction


def optimised(photo: Photo, config: Config, folder: Path) -> Reconstruction:
    """The optimiser's result, from a folder where it is kept between runs.

    Raises:
        InputError: the folder holds something that cannot be read.
        OutputError: it cannot be written.
    """
    from raytrace_face.fit.reconstruct import reconstruct

    if (folder / "result.json").is_file():
        kept = Reconstruction.load(folder)
        if (kept.photo_sha256, kept.config) == (photo.sha256, config):
            return kept
    result = reconstruct(photo, config, progress=False)
    result.save(folder, force=True)
    return result


def agreement(both: Both) -> dict[str, float]:
    """Figures of one photo.

    - `psnr_db` in the skin that the optimiser fitted, of either, and of the optimiser's stage 1, whose skin is
      statistical as the encoder's nearly is; of a monochrome photo by luminance alone;
    - `landmarks_percent`: RMS distance of the projected landmarks from the detected ones, of the window's side;
    - `light_apart_deg`: between the main lights.
    """
    from raytrace_face.fit.window import psnr_db

    e, o = both.encoder, both.optimiser
    photo, weight = o.pictures.photo, o.pictures.mask
    grey = bool(np.ptp(photo, axis=2).max() <= 1e-3 * photo.max())

    def psnr(picture: Array) -> float:
        return psnr_db(luminance(picture)[..., None] if grey else picture, photo[..., :1] if grey else photo, weight)

    return {
        "psnr_db": psnr(e.pictures.render),
        "optimiser_psnr_db": psnr(o.pictures.render),
        "optimiser_stage1_db": psnr(o.pictures.stage1),
        "landmarks_percent": landmarks_percent(e),
        "optimiser_landmarks_percent": landmarks_percent(o),
        "light_apart_deg": float(angle_deg(e.dominant_light, o.dominant_light)),
    }


def landmarks_percent(result: Reconstruction) -> float:
    """RMS distance of a result's landmarks from the detected ones, percent of the window's side."""
    model = result.face_model()
    points = to_camera(result.face.T_camera_head, model.landmark_points(result.vertices()))
    offset = project(result.camera, points) - result.landmarks_px[model.landmark_index]
    return float(100 * np.sqrt((offset**2).sum(axis=1).mean()) / result.window.side_px)


# pictures

LABELS = (
    *("photo", "encoder, traced", "encoder, albedo", "encoder, light"),
    *("optimiser, traced", "optimiser, albedo", "optimiser, light"),
)
HEADLINE = 22
"""Pixels of the line above a row."""


def sheet(rows: Sequence[Both]) -> Image.Image:
    """One row a photo: the photo, then picture, albedo and light of both; balls are as bright as the optimiser's."""
    step, wide = HEADLINE + panel.TILE + panel.GAP, panel.TILE + panel.GAP
    out = Image.new("RGB", (panel.GAP + len(LABELS) * wide, panel.LABEL + len(rows) * step), panel.BACKGROUND)
    pen = ImageDraw.Draw(out)
    for k, label in enumerate(LABELS):
        pen.text((panel.GAP + k * wide, 4), label, panel.INK, ImageFont.load_default(13))
    for number, both in enumerate(rows):
        top, warnings = panel.LABEL + number * step, both.encoder.warnings
        text = panel.fit_text(pen, headline(both), out.width - 2 * panel.GAP, 13)
        pen.text((panel.GAP, top + 4), text, panel.WARN if warnings else panel.INK, ImageFont.load_default(13))
        balls = [ball(both.encoder), ball(both.optimiser)]
        white = max(float(balls[1].max()), 1e-6)
        pictures = [encode_u8(both.optimiser.pictures.photo)]
        for result, lit in zip((both.encoder, both.optimiser), balls, strict=True):
            pictures += [encode_u8(traced(result)), encode_u8(result.pictures.diffuse), encode_u8(lit / white)]
        for k, codes in enumerate(pictures):
            out.paste(panel.tile(codes), (panel.GAP + k * wide, top + HEADLINE))
    return out


def headline(both: Both) -> str:
    """The line above a row."""
    found = agreement(both)
    text = (
        f"{both.name}   {found['psnr_db']:.1f} dB, optimiser {found['optimiser_psnr_db']:.1f};   "
        f"lights {found['light_apart_deg']:.0f} deg apart"
    )
    return text + "".join(f";   {warning}" for warning in both.encoder.warnings)


def traced(result: Reconstruction) -> Array:
    """(S, S, 3) re-rendering over the darkened photo."""
    p = result.pictures
    head = np.linalg.norm(p.normals, axis=-1, keepdims=True) > 0
    return np.where(head, p.render, 0.25 * p.photo)


def ball(result: Reconstruction) -> Array:
    """(B, B, 3) a white ball under a result's light, as it falls in the photo."""
    from raytrace_face.learn.validate import light_ball

    return light_ball(
        result.lights.directions(), result.lights.irradiance(), result.ambient_sh, result.face.T_camera_head
    )


# times


def times(predictor: Predictor, photo: Photo) -> dict[str, Any]:
    """Median seconds of a warm `look`, and of the network's pass within it."""
    import torch

    from raytrace_face.capture import capture

    seen = capture(photo, None, PREVIEW.resolved().stage2.size)
    begun, passes = list[float](), list[float]()
    network = predictor.weights.network
    hooks = [
        network.register_forward_pre_hook(lambda *_: begun.append(time.perf_counter())),
        network.register_forward_hook(lambda *_: passes.append(time.perf_counter() - begun[-1])),
    ]
    try:
        looks = [seconds(lambda: predictor.look(photo, seen)) for _ in range(PASSES + 1)]
    finally:
        for hook in hooks:
            hook.remove()
    return {
        "network_s": float(np.median(passes[1:])),
        "look_s": float(np.median(looks[1:])),
        "threads": torch.get_num_threads(),
    }
