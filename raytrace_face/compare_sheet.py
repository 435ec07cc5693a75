"""The comparison as a picture and as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from raytrace_face import panel
from raytrace_face.capture.colour import encode_u8
from raytrace_face.compare import Entry, Pair, Results, on_window
from raytrace_face.export import linear_u8
from raytrace_face.measure.perceptual import NAME as ST_LPIPS

Row = dict[str, Any]
HEADLINE = 24
"""Pixels of a line above the tiles of an entry."""
TILES = 7


def entry_rows(found: Sequence[Entry], results: Results) -> list[Row]:
    """One row an entry: what it is, and how alike its picture is to the photo and to the first of the same photo."""
    rows = []
    for e in found:
        row: Row = {"result": e.name, "rendered": e.setting.label, "photo": results[e.name].photo_name}
        row |= {"pixels": int(e.view.mask.sum()), "PSNR dB": e.scores.psnr_db, "SSIM": e.scores.ssim}
        row[ST_LPIPS] = e.scores.perceptual
        row["PSNR to the first dB"] = math.nan if e.to_first is None else e.to_first.psnr_db
        row["SSIM to the first"] = math.nan if e.to_first is None else e.to_first.ssim
        rows.append(row)
    return rows


def pair_rows(found: Sequence[Pair]) -> list[Row]:
    """One row for every two results: angles of the main light, distances of the neutral faces, albedo."""
    rows = []
    for p in found:
        rows.append(
            {
                "results": f"{p.names[0]} - {p.names[1]}",
                "light deg, camera": p.light_camera_deg,
                "light deg, head": p.light_head_deg,
                "face mm: rigid median": p.rigid.median,
                "rigid p90": p.rigid.p90,
                "similarity median": p.similar.median,
                "similarity p90": p.similar.p90,
                "scale": p.scale,
                "albedo rmse": math.nan if p.albedo is None else p.albedo.as_it_stands,
                "albedo rmse, one scale": math.nan if p.albedo is None else p.albedo.one_scale,
            }
        )
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """A table in Markdown; columns that hold no number in any row are left out, single gaps are a dash."""
    columns = [c for c in rows[0] if not all(isinstance(r[c], float) and math.isnan(r[c]) for r in rows)]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row[c]) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value).replace("|", "\\|")
    return "-" if math.isnan(value) else f"{value:.4g}"


def draw(found: Sequence[Entry], results: Results, between: Sequence[Pair]) -> Image.Image:
    """The sheet: a row an entry under a line of figures, and a line for every two results below."""
    step = HEADLINE + panel.LABEL + panel.TILE + 2 * panel.GAP
    width = panel.GAP + TILES * (panel.TILE + panel.GAP)
    sheet = Image.new("RGB", (width, panel.GAP + step * len(found) + HEADLINE * len(between)), panel.BACKGROUND)
    pen = ImageDraw.Draw(sheet)

    def write(x: int, y: int, text: str, room: int, size: int) -> None:
        pen.text((x, y), panel.fit_text(pen, text, room, size), panel.INK, ImageFont.load_default(size))

    drawn: set[str] = set()
    for number, e in enumerate(found):
        y = panel.GAP + number * step
        write(panel.GAP, y, _headline(e, results), width - 2 * panel.GAP, 15)
        y += HEADLINE
        first = next(f for f in found if f.view is e.view)
        for column, (label, codes) in enumerate(_tiles(e, first, results, maps=e.name not in drawn)):
            x = panel.GAP + column * (panel.TILE + panel.GAP)
            write(x, y, label, panel.TILE, 13)
            sheet.paste(panel.tile(codes), (x, y + panel.LABEL))
        drawn.add(e.name)
    for number, p in enumerate(between):
        write(panel.GAP, panel.GAP + step * len(found) + number * HEADLINE, _line(p), width - 2 * panel.GAP, 15)
    return sheet


def _headline(e: Entry, results: Results) -> str:
    azimuth, elevation = results[e.name].dominant_light_angles()
    figures = [f"{e.name} ({e.setting.label})", f"PSNR {e.scores.psnr_db:.1f} dB", f"SSIM {e.scores.ssim:.3f}"]
    if not math.isnan(e.scores.perceptual):
        figures.append(f"ST-LPIPS {e.scores.perceptual:.3f}")
    side, height = "right" if azimuth >= 0 else "left", "above" if elevation >= 0 else "below"
    figures.append(f"main light {abs(azimuth):.0f} deg from the image's {side}, {abs(elevation):.0f} deg {height}")
    return "    ".join(figures)


def _line(p: Pair) -> str:
    figures = [
        f"{p.names[0]} - {p.names[1]}",
        f"light {p.light_camera_deg:.1f} deg apart ({p.light_head_deg:.1f} deg to the head)",
        f"face {p.rigid.median:.2f} mm rigid, {p.similar.median:.2f} mm similar (medians)",
    ]
    if p.albedo is not None:
        figures.append(f"albedo rmse {p.albedo.as_it_stands:.2f}, {p.albedo.one_scale:.2f} after one scale")
    return "    ".join(figures)


def _tiles(e: Entry, first: Entry, results: Results, maps: bool) -> list[tuple[str, NDArray[np.uint8]]]:
    """Photo, render, differences in the common region; with `maps` the result's albedo, shading and self-shadow."""
    view, pictures, own = e.view, results[e.name].pictures, results[e.name].window
    where, gain = view.mask[..., None], f"x{panel.DIFFERENCE_GAIN:.0f}"
    tiles = [
        ("photo", encode_u8(view.photo)),
        ("rendered", encode_u8(e.picture)),
        (f"minus photo {gain} (grey = none)", panel.difference(e.picture, view.photo, where)),
    ]
    if e is not first:
        tiles.append((f"minus first row of the photo {gain}", panel.difference(e.picture, first.picture, where)))
    else:
        tiles.append(("common region", linear_u8(view.mask.astype(np.float32))))
    if maps:
        head = np.linalg.norm(pictures.normals, axis=-1, keepdims=True) > 0
        white = panel.white_of(pictures.shading, head)
        shadow = np.where(head[..., 0], pictures.shadow, np.float32(0.1))
        tiles += [
            ("diffuse albedo", encode_u8(on_window(pictures.diffuse, own, view.window))),
            (f"shading (white = {white:.2g})", encode_u8(on_window(pictures.shading, own, view.window) / white)),
            ("self-shadow (white = none)", linear_u8(on_window(shadow, own, view.window))),
        ]
    return tiles
