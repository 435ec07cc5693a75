"""`panel.png`: one look tells whether a reconstruction worked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from raytrace_face.capture.colour import encode_u8
from raytrace_face.export import SPECULAR_PREVIEW_WHITE, linear_u8
from raytrace_face.types import Array

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction

TILE = 256
LABEL = 22
GAP = 6
DIFFERENCE_GAIN = 4.0
"""Differences are shown this much enlarged, in sRGB-encoded values about mid grey."""
BACKGROUND, INK, WARN = (24, 24, 24), (235, 235, 235), (255, 190, 90)


def draw(result: Reconstruction) -> Image.Image:
    """The panel of a reconstruction: two rows of five labelled pictures under a headline."""
    tiles = _tiles(result)
    lines = _headline(result)
    top = GAP + 20 * len(lines) + GAP
    width = GAP + 5 * (TILE + GAP)
    panel = Image.new("RGB", (width, top + 2 * (TILE + LABEL + GAP)), BACKGROUND)
    pen = ImageDraw.Draw(panel)
    for number, (line, colour) in enumerate(lines):
        pen.text((GAP, GAP + 20 * number), fit_text(pen, line, width - 2 * GAP, 15), colour, ImageFont.load_default(15))
    for number, (label, codes) in enumerate(tiles):
        x = GAP + (number % 5) * (TILE + GAP)
        y = top + (number // 5) * (TILE + LABEL + GAP)
        pen.text((x, y), fit_text(pen, label, TILE, 13), INK, ImageFont.load_default(13))
        panel.paste(tile(codes), (x, y + LABEL))
    return panel


def tile(codes: NDArray[np.uint8]) -> Image.Image:
    """8-bit codes (S, S) or (S, S, 3) at the size of a tile."""
    picture = Image.fromarray(np.ascontiguousarray(codes)).convert("RGB")
    method = Image.Resampling.BOX if codes.shape[0] > TILE else Image.Resampling.NEAREST
    return picture.resize((TILE, TILE), method)


def fit_text(pen: ImageDraw.ImageDraw, text: str, width: int, size: int) -> str:
    """The text, shortened with an ellipsis where it is wider than `width` pixels."""
    font = ImageFont.load_default(size)
    if pen.textlength(text, font) <= width:
        return text
    while text and pen.textlength(text + "...", font) > width:
        text = text[:-1]
    return text + "..."


def _headline(result: Reconstruction) -> list[tuple[str, tuple[int, int, int]]]:
    azimuth, elevation = result.dominant_light_angles()
    figures = [result.photo_name]
    before, after = result.metrics.get("psnr_stage1_db"), result.metrics.get("psnr_db")
    if before is not None and after is not None:
        figures.append(f"PSNR {before:.1f} -> {after:.1f} dB (stage 1 -> 2)")
    side, height = "right" if azimuth >= 0 else "left", "above" if elevation >= 0 else "below"
    figures.append(f"main light {abs(azimuth):.0f} deg from the image's {side}, {abs(elevation):.0f} deg {height}")
    if "total" in result.timings:
        figures.append(f"{result.timings['total']:.1f} s")
    return [("    ".join(figures), INK), *((f"warning: {line}", WARN) for line in result.warnings)]


def _tiles(result: Reconstruction) -> list[tuple[str, NDArray[np.uint8]]]:
    p = result.pictures
    head = np.linalg.norm(p.normals, axis=-1, keepdims=True) > 0
    over = np.where(head, p.render, 0.25 * p.photo)
    shading_white = white_of(p.shading, head)
    return [
        ("photo", encode_u8(p.photo)),
        ("reconstruction over the dimmed photo", encode_u8(over)),
        (f"difference x{DIFFERENCE_GAIN:.0f} (grey = none, sRGB codes)", difference(p.render, p.photo, head)),
        (f"shading (white = {shading_white:.2g})", encode_u8(p.shading / shading_white)),
        ("self-shadow (white = none)", linear_u8(np.where(head[..., 0], p.shadow, 0.1))),
        ("diffuse albedo", encode_u8(p.diffuse)),
        (f"specular F0 (white = {SPECULAR_PREVIEW_WHITE})", linear_u8(p.specular / SPECULAR_PREVIEW_WHITE)),
        ("roughness (white = 1)", linear_u8(p.roughness)),
        ("confidence (white = observed)", linear_u8(p.confidence)),
        ("normals (camera frame)", linear_u8(np.where(head, 0.5 + 0.5 * p.normals, 0.1))),
    ]


def difference(image: Array, other: Array, where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Codes (S, S, 3) of image minus other (linear) `where` (S, S, 1): enlarged, of encoded values as eyes see them."""
    gap = encode_u8(image).astype(np.float32) - encode_u8(other).astype(np.float32)
    return np.where(where, np.clip(127.5 + DIFFERENCE_GAIN * gap, 0, 255), 24).astype(np.uint8)


def white_of(image: NDArray[np.floating], head: NDArray[np.bool_]) -> float:
    """The 99.5th percentile of the head's pixels: what a tile shows as white."""
    values = image[np.broadcast_to(head, image.shape)]
    return max(float(np.percentile(values, 99.5)), 1e-6) if values.size else 1.0
