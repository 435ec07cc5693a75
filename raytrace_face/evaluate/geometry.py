"""`raytrace-face evaluate geometry`: anyone's face mesh against a scan, with the mean face beside it."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro

from raytrace_face.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from raytrace_face.measure.meshes import Scan
    from raytrace_face.measure.protocols import GeometryScores
    from raytrace_face.measure.surface import F

COLUMNS = {
    "aligned_median_mm": "median",
    "aligned_mean_mm": "mean",
    "aligned_std_mm": "std",
    "aligned_p90_mm": "p90",
    "unscaled_median_mm": "un-scaled median",
    "posed_median_mm": "posed median",
    "normals_mean_deg": "normals deg",
    "nose_median_mm": "nose",
    "mouth_median_mm": "mouth",
    "forehead_median_mm": "forehead",
    "cheeks_median_mm": "cheeks",
}
"""What the printed table shows, in mm unless said otherwise; table.csv has every figure."""
COLOUR_MM, CURVE_MM = 3.0, 5.0
"""Ends of the colour scale and of the curves: 90 and 99 % of the points of today's methods lie within."""
MAX_POINTS = 60_000
"""Points drawn: more cannot be told apart on the picture."""

_unset = {"help_behavior_hint": ""}
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", **_unset)]
Unit = Literal["mm", "cm", "m"]


def geometry(
    *,
    scan: Path,
    scan_landmarks: Path,
    mesh: Path,
    mesh_landmarks: OptionalPath = None,
    protocol: Literal["now", "micc"] = "now",
    unit: Unit = "mm",
    scan_unit: Unit = "mm",
    out: OptionalPath = None,
    quiet: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> None:
    """Measure a face mesh against a scan: scan-to-mesh distances beside those of the mean face, as Markdown.

    Landmark files hold seven points: eye corners from the person's right to the left, nose bottom, mouth corners,
    right one first (.txt, .csv, .npy, .json, or .pp of MeshLab).

    Args:
        scan: the truth: .ply, .obj, .glb or .stl.
        scan_landmarks: its seven landmarks.
        mesh: what is measured: .obj, .ply, .glb or .stl, or a result folder of `reconstruct`.
        mesh_landmarks: its seven landmarks; a result folder has its own.
        protocol: now (NoW challenge) or micc (MICC Florence).
        unit: of the mesh and its landmarks.
        scan_unit: of the scan and its landmarks.
        out: folder for the table, the distances, cumulative curves and a picture of the errors.
        quiet: no progress and no table.
    """
    if out is not None and os.path.lexists(out):
        raise OutputError(f"output {str(out)!r} exists: choose another with --out")
    from raytrace_face.measure.meshes import load_face, load_scan
    from raytrace_face.measure.protocols import compare, table_rows

    truth, truth_landmarks = load_scan(scan, scan_landmarks, scan_unit)
    face = load_face(mesh, mesh_landmarks, unit)
    name = mesh.resolve().name
    scores = compare(protocol, name, truth.vertices, truth_landmarks, face, truth.normals, progress=not quiet)
    rows = table_rows(scores)
    text = markdown(rows, {"shape": f"{protocol}, mm", **COLUMNS})
    if out is not None:
        _write(out, rows, text, scores, truth, truth_landmarks)
    if not quiet:
        print(text)


def markdown(rows: Sequence[Mapping[str, str | float]], columns: Mapping[str, str], digits: int = 2) -> str:
    """A Markdown table of rows: chosen keys under their titles, floats with `digits` decimals, NaN as a dash."""

    def cell(value: str | float) -> str:
        if isinstance(value, str):
            return value.replace("|", "\\|")
        return "-" if np.isnan(value) else f"{value:.{digits}f}"

    lines = ["| " + " | ".join(columns.values()) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(row[key]) for key in columns) + " |" for row in rows]
    return "\n".join(lines)


def _write(
    out: Path,
    rows: Sequence[Mapping[str, str | float]],
    text: str,
    scores: Mapping[str, GeometryScores],
    scan: Scan,
    landmarks: F,
) -> None:
    """The output folder (docs/measures.md), in one piece."""
    from raytrace_face.output import new_folder

    with new_folder(out) as folder:
        (folder / "table.md").write_text(text + "\n", encoding="utf-8")
        with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        method, mean = scores.values()
        np.savez_compressed(
            folder / "distances.npz",
            points_mm=scan.vertices[method.counted].astype(np.float32),
            method_mm=method.distance_mm.astype(np.float32),
            mean_face_mm=mean.distance_mm.astype(np.float32),
        )
        _save(curves(scores), folder / "cumulative.png")
        _save(portrait(scores, scan.vertices, landmarks), folder / "errors.png")


def curves(scores: Mapping[str, GeometryScores]) -> Figure:
    """Cumulative error curves: share of the scan points that lie no farther from the mesh than a distance."""
    from matplotlib.figure import Figure

    from raytrace_face.measure.geometry import cumulative_curve

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    limits = np.linspace(0, CURVE_MM, 201)
    for (name, score), style in zip(scores.items(), ("-", "--"), strict=True):
        label = f"{name}, median {score.aligned.median:.2f} mm"
        axes.plot(limits, 100 * cumulative_curve(score.distance_mm, limits), style, label=label)
    axes.set(xlabel="distance of the scan from the mesh, mm", ylabel="scan points, %", xlim=(0, CURVE_MM))
    axes.set(ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def portrait(scores: Mapping[str, GeometryScores], points: F, landmarks: F) -> Figure:
    """The scan seen from the front, its points coloured by their distance from each mesh; grey ones do not count."""
    from matplotlib.figure import Figure

    from raytrace_face.measure.protocols import face_frame

    origin, frame = face_frame(landmarks)
    seen = (points - origin) @ frame.T
    corners = (landmarks - origin) @ frame.T
    figure = Figure(figsize=(5.2 * len(scores) + 0.8, 6.4), layout="constrained")
    panels = figure.subplots(1, len(scores), squeeze=False)[0]
    for axes, (name, score) in zip(panels, scores.items(), strict=True):
        rest, inside = seen[~score.counted], seen[score.counted]
        low, high = inside.min(axis=0) - 15, inside.max(axis=0) + 15
        rest = rest[((rest > low) & (rest < high)).all(axis=1)]
        rest = rest[_nearest_last(rest)]
        axes.scatter(rest[:, 0], rest[:, 1], s=4, c="0.85", linewidths=0)
        order = _nearest_last(inside)
        size = float(np.clip(200_000 / len(order), 2, 20))  # points touch
        drawn = axes.scatter(
            inside[order, 0], inside[order, 1], s=size, c=score.distance_mm[order],
            vmin=0, vmax=COLOUR_MM, cmap="viridis", linewidths=0,
        )  # fmt: skip
        axes.plot(corners[:, 0], corners[:, 1], "+", color="red", markersize=8)
        axes.set(aspect="equal", xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="mm")
        axes.set_title(f"{name}: median {score.aligned.median:.2f} mm")
    figure.colorbar(drawn, ax=list(panels), label="distance of the scan from the mesh, mm", extend="max", shrink=0.8)
    return figure


def _nearest_last(points: F) -> np.ndarray:
    """Order of points (N, 3) by depth, so that near ones are drawn over far ones; thinned out to `MAX_POINTS`."""
    order = np.argsort(points[:, 2])
    return order[:: max(1, -(-len(order) // MAX_POINTS))]


def _save(figure: Figure, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).print_png(path)
