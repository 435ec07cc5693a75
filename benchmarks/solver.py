"""Time to equal photometric loss: the default solver against `solver = "montecarlo"` on the demo photo.

Both solvers share losses, BSDF, rig and pictures, and run in one process after a warm-up that compiles the kernels.
The Monte-Carlo solver is run whole with growing numbers of iterations (stage 2 gets 12 for every 25 of stage 1, as in
its defaults); the time at which it reaches the default solver's final PSNR is interpolated between runs, in log time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.common import Section, table
from raytrace_face.config import Config
from raytrace_face.types import Photo

PHASES = ("stage1", "stage2")


def montecarlo(config: Config, steps: int) -> Config:
    """The plain solver with `steps` iterations of stage 1."""
    plain = replace(config.montecarlo, stage1_iterations=steps, stage2_iterations=max(round(steps * 0.48), 1))
    return replace(config, solver="montecarlo", montecarlo=plain)


def timed(name: str, photo: Photo, config: Config, shown: bool) -> dict[str, Any]:
    """One run: seconds by stage and in all, and what it reached."""
    from raytrace_face.fit.reconstruct import reconstruct

    result = reconstruct(photo, config, progress=shown)
    row: dict[str, Any] = {"run": name, **{p: result.timings[p] for p in PHASES}, "total": result.timings["total"]}
    row["stages"] = sum(row[p] for p in PHASES)
    return row | {k: result.metrics[k] for k in ("psnr_stage1_db", "psnr_db")}


def time_to_reach(rows: Sequence[dict[str, Any]], key: str, goal_db: float, clock: str = "stages") -> float:
    """Seconds of a clock (column) at which runs sorted by time pass a PSNR, log-interpolated; infinite if none."""
    for before, after in zip([None, *rows], rows, strict=False):
        if after[key] >= goal_db:
            if before is None:
                return float(after[clock])
            share = (goal_db - before[key]) / (after[key] - before[key])
            logs = np.log([before[clock], after[clock]])
            return float(np.exp(logs[0] + share * (logs[1] - logs[0])))
    return float("inf")


def verdict(default: dict[str, Any], plain: Sequence[dict[str, Any]], key: str, clock: str, label: str) -> str:
    """One sentence on the ratio at equal loss."""
    reached = time_to_reach(plain, key, default[key], clock)
    if np.isfinite(reached):
        ratio = reached / default[clock]
        needs = f"montecarlo needs {reached:.0f} s for {default[key]:.1f} dB"
        return f"{label}: {needs}: **{ratio:.1f} x** the default's time."
    best, longest = max(r[key] for r in plain), plain[-1][clock]
    return (
        f"{label}: montecarlo does not reach {default[key]:.1f} dB in {longest:.0f} s (best {best:.1f} dB): "
        f"**more than {longest / default[clock]:.1f} x** the default's time."
    )


def section(photo: Photo, config: Config, steps: Sequence[int], shown: bool) -> Section:
    """Default solver, then Monte-Carlo with growing numbers of steps."""
    timed("warm-up", photo, config, shown)
    default = timed("default", photo, config, shown)
    timed("warm-up", photo, montecarlo(config, 2), shown)
    plain = [timed(f"montecarlo, {n} steps", photo, montecarlo(config, n), shown) for n in steps]
    keys = ("stage1", "stage2", "stages", "total", "psnr_stage1_db", "psnr_db")
    header = ["run", "stage 1 s", "stage 2 s", "both s", "whole photo s", "PSNR stage 1 dB", "PSNR stage 2 dB"]
    runs = table(header, [[r["run"], *(r[k] for k in keys)] for r in (default, *plain)])
    lines = [
        verdict(default, plain, "psnr_db", "stages", "After both stages"),
        verdict(default, plain, "psnr_stage1_db", "stage1", "After stage 1"),
    ]
    title = f"Transport against Monte-Carlo, {config.quality}"
    return Section("solvers", title, "\n\n".join([runs, *lines]), [default, *plain])
