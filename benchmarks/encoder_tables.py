"""The tables of `benchmarks.encoder`: what was measured, against the project's own bars."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import encoder_doubts, encoder_tones
from benchmarks.report import figures
from raytrace_face.benchmark.methods import DEFAULT, NOTHING
from raytrace_face.benchmark.table import Figure, Run, figure, markdown, sums

ENCODER = "encoder"
"""Name of the weights that are judged, beside those of `--compare`."""
LIGHT_DEG, LANDMARK_RATIO, PSNR_LOSS_DB = 12.0, 1.3, 4.0
"""Bars: the main light on Yale B; landmark error over the optimiser's; PSNR below the optimiser's."""
PROTOCOLS = {"synthetic": "head", "yaleb": "subject", "ablation": "subject"}
"""Benchmark -> column of the person."""
YALE_FIGURES = (
    ("relight_psnr_db", "relight, dB", 1),
    ("albedo_rmse", "albedo rmse", 2),
    ("normals_deg", "normals, deg", 1),
)
SYNTHETIC_FIGURES = (
    ("light_error_deg", "main light, deg", 1),
    ("pose_deg", "pose, deg", 1),
    ("albedo_rmse", "albedo rmse", 2),
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A line of the table of figures."""

    what: str
    encoder: str
    optimiser: str = "-"
    floor: str = "-"
    """The mean face, light from the camera, the photo as albedo."""
    bar: str = ""
    met: bool | None = None

    def cells(self) -> list[str]:
        verdict = {None: "", True: "met", False: "**missed**"}[self.met]
        return [self.what, self.encoder, self.optimiser, self.floor, self.bar, verdict]


@dataclass(frozen=True)
class Found:
    """Everything that was measured."""

    runs: Mapping[str, Sequence[Run]]
    """Benchmark -> runs of the weights."""
    optimiser: Run
    """On the synthetic photos."""
    photos: Sequence[Row]
    doubts: Sequence[Row]
    tones: Sequence[Row]
    times: Row
    work: Path
    """Where `benchmarks.report` left the optimiser's figures on Yale B."""

    def of(self, benchmark: str, key: str, name: str = ENCODER) -> Figure:
        """A mean with its interval."""
        run = next(r for r in self.runs[benchmark] if r.method.name == name)
        return figure(*sums([d.row for d in run.done], key, PROTOCOLS[benchmark]))

    def of_optimiser(self, key: str) -> Figure:
        """A mean on the synthetic photos with its interval."""
        return figure(*sums([d.row for d in self.optimiser.done], key, "head"))

    def of_photos(self, key: str, name: str = ENCODER, group: str = "photos") -> Figure:
        """A mean over a set of real photos with its interval."""
        own = [r for r in self.photos if r["weights"] == name and r["set"] == group]
        return figure(*sums(own, key, "photo"))

    def of_report(self, benchmark: str, method: str, key: str) -> str:
        """A mean that `benchmarks.report` left, or a dash."""
        folder = self.work / f"{benchmark}_results"
        if not (folder / "table.csv").is_file():
            return "-"
        found = figures(folder, method).get(key)
        return "-" if found is None else f"{found['mean']:.{2 if 'rmse' in key else 1}f}"


def lines(f: Found) -> list[Line]:
    """The table of figures."""
    light, front = f.of("yaleb", "light_error_deg"), f.of_report("yaleb", NOTHING, "light_error_deg")
    every = np.concatenate([np.atleast_1d(d.row["light_error_deg"]) for d in f.runs["yaleb"][0].done])
    shape, mean = f.of("synthetic", "aligned_median_mm"), f.of("synthetic", "mean face.aligned_median_mm")
    marks, theirs = f.of("synthetic", "landmarks_px"), f.of_optimiser("landmarks_px")
    ratio = marks.mean / theirs.mean
    psnr, other = f.of_photos("psnr_db"), f.of_photos("optimiser_psnr_db")
    loss = other.mean - psnr.mean
    found = [
        Line("Yale B, main light, mean", f"{light.text(1)} deg", f.of_report("yaleb", DEFAULT, "light_error_deg"),
             front, f"{LIGHT_DEG:g} deg", light.mean <= LIGHT_DEG),
        Line("... median", f"{np.nanmedian(every):.1f} deg", median_of_report(f.work, DEFAULT),
             median_of_report(f.work, NOTHING)),
        Line("... photos on which it failed", failed(f.runs["yaleb"][0])),
    ]  # fmt: skip
    for key, title, digits in YALE_FIGURES:
        both = [f.of_report("yaleb", method, key) for method in (DEFAULT, NOTHING)]
        found.append(Line(f"Yale B, {title}", f.of("yaleb", key).text(digits), *both))
    found += [
        Line("synthetic heads, shape, aligned median", f"{shape.text(2)} mm",
             f.of_optimiser("aligned_median_mm").text(2), mean.text(2), "below the mean face", shape.mean < mean.mean),
        Line("synthetic heads, true landmarks", f"{marks.text(2)} px, {ratio:.2f} x the optimiser's", theirs.text(2),
             "-", f"{LANDMARK_RATIO:g} x", ratio <= LANDMARK_RATIO),
    ]  # fmt: skip
    for key, title, digits in SYNTHETIC_FIGURES:
        both = [x.text(digits) for x in (f.of("synthetic", key), f.of_optimiser(key))]
        found.append(Line(f"synthetic heads, {title}", *both))
    found += [
        Line("... photos on which it failed", failed(f.runs["synthetic"][0]), failed(f.optimiser)),
        Line(f"real photos ({psnr.count}), PSNR in skin", f"{psnr.text(1)} dB, {loss:.1f} below", other.text(1), "-",
             f"{PSNR_LOSS_DB:g} dB below", loss <= PSNR_LOSS_DB),
        Line("... optimiser with statistical skin (stage 1)", "", f.of_photos("optimiser_stage1_db").text(1)),
        Line("... landmarks from the detected ones, % of the window", f.of_photos("landmarks_percent").text(2),
             f.of_photos("optimiser_landmarks_percent").text(2)),
        Line("... main light from the optimiser's", f"{f.of_photos('light_apart_deg').text(0)} deg"),
        Line("Yale photos of the sheet, PSNR in skin", f.of_photos("psnr_db", group="yaleb").text(1),
             f.of_photos("optimiser_psnr_db", group="yaleb").text(1)),
        Line("network, one pass", f"{1000 * f.times['network_s']:.0f} ms"),
        Line("`look`: crop, network, geometry, maps", f"{1000 * f.times['look_s']:.0f} ms"),
    ]  # fmt: skip
    return found


def failed(run: Run) -> str:
    """How many photos of a run count as doing nothing."""
    return f"{len(run.failed)} of {len(run.done)}"


def median_of_report(work: Path, method: str) -> str:
    """Median angle of the main light that `benchmarks.report` left, or a dash."""
    path = work / "yaleb_results" / "items.csv"
    if not path.is_file():
        return "-"
    with path.open(encoding="utf-8", newline="") as file:
        values = [float(r["light_error_deg"]) for r in csv.DictReader(file) if r["method"] == method]
    return f"{np.nanmedian(values):.1f}" if values else "-"


def ablation(f: Found) -> str:
    """One row a weights: what training without an idea costs. Yale B as in the ablation of the optimiser."""
    columns = [
        ("ablation", "light_error_deg", "Yale B light, deg", 1), ("ablation", "relight_psnr_db", "relight, dB", 1),
        ("ablation", "albedo_rmse", "albedo rmse", 2), ("synthetic", "aligned_median_mm", "synthetic shape, mm", 2),
        ("synthetic", "landmarks_px", "landmarks, px", 2), ("synthetic", "light_error_deg", "light, deg", 1),
        ("synthetic", "albedo_rmse", "albedo rmse", 2),
    ]  # fmt: skip
    photos = [("psnr_db", "photos, dB", 1), ("landmarks_percent", "landmarks, %", 2)]
    rows = []
    for run in f.runs["ablation"]:
        name = run.method.name
        cells = [f.of(benchmark, key, name).text(digits) for benchmark, key, _, digits in columns]
        rows.append([name, *cells, *(f.of_photos(key, name).text(digits) for key, _, digits in photos)])
    cells = [f.of_report("ablation", DEFAULT, key) for benchmark, key, *_ in columns if benchmark == "ablation"]
    cells += [f.of_optimiser(key).text(digits) for benchmark, key, _, digits in columns if benchmark == "synthetic"]
    cells += [f.of_photos(f"optimiser_{key}").text(digits) for key, _, digits in photos]
    header = ["weights", *(title for *_, title, _ in columns), *(title for _, title, _ in photos)]
    return markdown(header, [*rows, ["optimiser, preview", *cells]])


def text(f: Found) -> str:
    """Everything as Markdown."""
    parts = [
        "## The encoder",
        markdown(["what", "encoder", "optimiser", "nothing", "bar", ""], [line.cells() for line in lines(f)]),
        "Means (95 % bootstrap interval over people or photos). Predictions are at preview quality; the optimiser "
        "ran at standard quality on Yale B, else at preview.",
        "### Warnings",
        encoder_doubts.summary(f.doubts),
    ]
    if f.tones:
        parts += ["### By skin tone", encoder_tones.by_tone(f.tones)]
    looked = [r for r in f.doubts if r["set"] in ("photos", "LFW") and not r["refused"]]
    unlabelled = {"landmarks": ("landmarks / limit", 2), "code": ("code / limit", 2), "warned": ("share warned", 2)}
    parts += ["Real photos, by the melanin that is predicted:", encoder_tones.by_tone(looked, unlabelled)]
    if "ablation" in f.runs:
        parts += ["### Without an idea", ablation(f)]
    return "\n\n".join(parts) + "\n"
