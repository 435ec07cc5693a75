"""A picture of a training: losses by step, and figures on held-out photos."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from raytrace_face.learn.journal import LOG, VALIDATION

LOSSES = (
    "loss", "synthetic/dominant", "synthetic/light", "synthetic/vertices", "synthetic/landmarks", "synthetic/albedo",
    "real/photometric", "real/landmarks",
)  # fmt: skip
HELD_OUT = {
    "light_deg": ("main light, deg", "front_light_deg"),
    "vertex_mm": ("vertices, mm", "mean_vertex_mm"),
    "albedo": ("log albedo", "mean_albedo"),
    "psnr_db": ("PSNR in the skin, dB", None),
}
"""Figure of `learn.validate.measure`: its title, and the figure of who knows nothing."""
SMOOTHED = 10
"""Lines of the log (100 steps) in a running mean."""


def plot(folder: Path, path: Path) -> None:
    """Draw the logs of a training folder; nothing where there are none yet."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    log, held_out = _lines(folder / LOG), _lines(folder / VALIDATION)
    if not log:
        return
    figure = Figure(figsize=(13.6, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 4).ravel()
    for axis, key in zip(axes, LOSSES, strict=False):
        found = [(line["step"], line[key]) for line in log if key in line]
        if found:
            steps, values = np.array(found).T
            axis.plot(steps, values, color="C0", alpha=0.25)
            axis.plot(steps, _running_mean(values), color="C0")
        axis.set_title(key, fontsize=10)
    for axis, (key, (title, reference)) in zip(axes[8:], HELD_OUT.items(), strict=True):
        steps = [line["step"] for line in held_out]
        axis.plot(steps, [line.get(key, np.nan) for line in held_out], "o-", color="C1")
        if reference is not None:
            axis.plot(steps, [line.get(reference, np.nan) for line in held_out], "--", color="0.5")
        axis.set_title(f"held out: {title}", fontsize=10)
    last = log[-1]["step"]
    changes = [b["step"] for a, b in pairwise(log) if a["stage"] != b["stage"]]
    for axis in figure.axes:
        axis.set_xlim(0, last)
        axis.grid(alpha=0.3)
        for step in changes:
            axis.axvline(step, color="0.7", linewidth=0.8)
    stages = ", ".join(dict.fromkeys(line["stage"] for line in log))
    figure.suptitle(f"{stages}: {last} steps")
    figure.savefig(path, dpi=90)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def _running_mean(values: np.ndarray) -> np.ndarray:
    """(N,) means over what is there of the last SMOOTHED values."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    end = np.arange(1, len(values) + 1)
    begin = np.maximum(end - SMOOTHED, 0)
    return np.asarray((total[end] - total[begin]) / (end - begin))
