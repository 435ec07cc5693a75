"""The encoder's errors by skin tone: on held-out synthetic photos with truth, and on photos what needs no truth.

Melanin is in standard deviations of the skin prior, positive is darker. Age is not in the truth of synthetic photos,
and no photo here is labelled with it, so that nothing is said of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from benchmarks.common import table
from raytrace_face.benchmark.table import figure, sums

if TYPE_CHECKING:
    from raytrace_face.learn.predict import Predictor

HELD_OUT = 64
"""Sittings at the end of the folder that training leaves out (`learn.recipe.Recipe.held_out`)."""
TONES = ("light", "middle", "dark")
FIGURES = {
    "albedo": ("log albedo", 2),
    "mean_albedo": ("of the mean skin", 2),
    "light_deg": ("light, deg", 1),
    "landmark_px": ("landmarks, px of the crop", 2),
    "vertex_mm": ("vertices, mm", 2),
    "rotation_deg": ("pose, deg", 1),
    "psnr_db": ("own photo, dB", 1),
}
Row = Mapping[str, Any]


def held_out_rows(predictor: Predictor, sittings: Path, count: int = HELD_OUT, quiet: bool = False) -> list[Row]:
    """Figures of `learn.validate.measure` for each of the last photos of a folder of sittings, and its melanin.

    Raises:
        InputError: no such folder, or nothing in it can be read.
    """
    from raytrace_face.learn.dataset import SyntheticPhotos
    from raytrace_face.learn.recipe import Recipe
    from raytrace_face.learn.validate import VALIDATION_EPOCH, measure

    network, recipe = predictor.weights.network, Recipe()
    data = SyntheticPhotos(sittings, recipe.seed, network.sizes.crop)
    rows = []
    numbers = range(max(len(data) - count, 0), len(data))
    for number in tqdm(numbers, desc="sittings", disable=quiet, dynamic_ncols=True):
        found, _ = measure(predictor.world, network, data, [number], recipe, predictor.weights.decoded)
        melanin = float(data[VALIDATION_EPOCH, number]["albedo"][0])
        rows.append({"number": number, "melanin": melanin, **found})
    return rows


def terciles(rows: Sequence[Row]) -> list[list[Row]]:
    """Three equal parts by melanin, the lightest skin first; rows without it are left out."""
    known = sorted((r for r in rows if np.isfinite(r["melanin"])), key=lambda r: float(r["melanin"]))
    return [[known[k] for k in part] for part in np.array_split(np.arange(len(known)), len(TONES))]


def by_tone(rows: Sequence[Row], figures: Mapping[str, tuple[str, int]] = FIGURES) -> str:
    """A table: means of the terciles and of all, with 95 % bootstrap intervals over photos.

    Args:
        rows: each with `melanin` and the figures.
        figures: key of a row -> title and decimals.
    """
    lines = []
    for name, part in zip((*TONES, "all"), (*terciles(rows), list(rows)), strict=True):
        numbered = [{**row, "item": k} for k, row in enumerate(part)]
        tones = [float(r["melanin"]) for r in part if np.isfinite(r["melanin"])]
        span = f"{min(tones):.1f} to {max(tones):.1f}" if tones else "-"
        cells = [figure(*sums(numbered, key, "item")).text(digits) for key, (_, digits) in figures.items()]
        lines.append([name, len(part), span, *cells])
    return table(["skin", "photos", "melanin", *(title for title, _ in figures.values())], lines)
