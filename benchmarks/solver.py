"""Time to equal photometric loss: the default solver against `solver = "montecarlo"` on the demo photo.

    python -m benchmarks.solver [--steps 30,60,125,250] [--out out/solver]

Both solvers share losses, BSDF, rig and pictures, and run in one process after a warm-up that compiles the kernels.
The Monte-Carlo solver is run whole with growing numbers of iterations (stage 2 gets 12 for every 25 of stage 1, as in
its defaults); the time at which it reaches the default solver's final PSNR is interpolated between runs, in log time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.common import add_common, config_of, markdown, publish, write_csv
from raytrace_face.config import Config

PHASES = ("stage1", "stage2")


def demo_photo() -> Any:
    """The astronaut portrait that scikit-image carries (NASA, public domain)."""
    from skimage import data

    from raytrace_face.capture import photo_from_array

    return photo_from_array(data.astronaut(), name="astronaut")


def montecarlo(config: Config, steps: int) -> Config:
    """The plain solver with `steps` iterations of stage 1."""
    plain = replace(config.montecarlo, stage1_iterations=steps, stage2_iterations=max(round(steps * 0.48), 1))
    return replace(config, solver="montecarlo", montecarlo=plain)


def timed(name: str, photo: Any, config: Config) -> dict[str, Any]:
    """One run: seconds by stage and in all, and what it reached."""
    from raytrace_face.fit.reconstruct import reconstruct

    result = reconstruct(photo, config, progress=False)
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


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solver", description=__doc__.split("\n")[0])
    add_common(parser, "out/solver")
    parser.add_argument("--steps", default="30,60,125,250", help="iterations of stage 1 of the plain solver, growing")
    args = parser.parse_args(argv)
    config, photo = config_of(args), demo_photo()
    timed("warm-up", photo, config)
    default = timed("default", photo, config)
    timed("warm-up", photo, montecarlo(config, 2))
    plain = [timed(f"montecarlo, {n} steps", photo, montecarlo(config, n)) for n in map(int, args.steps.split(","))]
    keys = ("stage1", "stage2", "stages", "total", "psnr_stage1_db", "psnr_db")
    header = ["run", "stage 1 s", "stage 2 s", "both s", "whole photo s", "PSNR stage 1 dB", "PSNR stage 2 dB"]
    table = markdown(header, [[r["run"], *(r[k] for k in keys)] for r in (default, *plain)])
    lines = [
        verdict(default, plain, "psnr_db", "stages", "After both stages"),
        verdict(default, plain, "psnr_stage1_db", "stage1", "After stage 1"),
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(args.out / "runs.csv", [default, *plain])
    publish(args.out, "solver", "\n\n".join([f"### Solvers on the demo photo, {args.quality}", table, *lines]))


if __name__ == "__main__":
    main()
