"""The contact sheet of many predictions: one row each, of pictures that are traced small.

This module loads the tracer: call `raytrace_face.backend.start` before it is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from raytrace_face.capture.colour import encode_u8
from raytrace_face.edit.composite import resized
from raytrace_face.fit.observation import Observation
from raytrace_face.panel import BACKGROUND, GAP, INK, LABEL, TILE, WARN, fit_text, tile, white_of
from raytrace_face.result import Reconstruction
from raytrace_face.retrace import retraced

SHOWN = 64
"""Rows of a sheet: what a person looks through."""
SIZE = 128
"""Pixels a side of the traced pictures: half of a tile."""


def sheet(folder: Path, names: Sequence[str]) -> Image.Image:
    """The sheet of result folders in a folder: all, or SHOWN of them, evenly out of all."""
    chosen = np.unique(np.linspace(0, len(names) - 1, min(SHOWN, len(names))).round().astype(int))
    return stacked([row(names[k], Reconstruction.load(folder / names[k])) for k in chosen])


def row(name: str, result: Reconstruction) -> Image.Image:
    """Photo, prediction, shading and albedo under the photo's name, in the colour of a warning where there is one."""
    window = result.window.resized(SIZE)
    photo = resized(result.pictures.photo, SIZE)  # the one picture that needs no tracing
    p = retraced(replace(result, window=window), Observation(photo, np.ones((SIZE, SIZE), np.float32), window))
    head = np.linalg.norm(p.normals, axis=-1, keepdims=True) > 0
    pictures = (p.photo, np.where(head, p.render, 0.25 * p.photo), p.shading / white_of(p.shading, head), p.diffuse)
    out = Image.new("RGB", (GAP + len(pictures) * (TILE + GAP), LABEL + TILE + GAP), BACKGROUND)
    pen = ImageDraw.Draw(out)
    text = f"{name}: {result.warnings[0]}" if result.warnings else name
    pen.text(
        (GAP, 4),
        fit_text(pen, text, out.width - 2 * GAP, 13),
        WARN if result.warnings else INK,
        ImageFont.load_default(13),
    )
    for k, picture in enumerate(pictures):
        out.paste(tile(encode_u8(picture)), (GAP + k * (TILE + GAP), LABEL))
    return out


def stacked(rows: Sequence[Image.Image]) -> Image.Image:
    """Rows of one width under one another."""
    out = Image.new("RGB", (rows[0].width, sum(r.height for r in rows)), BACKGROUND)
    top = 0
    for one in rows:
        out.paste(one, (0, top))
        top += one.height
    return out
