"""Where the time of one photo goes: by phase, and how much of it is ray tracing, the floor below which it cannot go.

Dr.Jit's kernel history tells execution times of the kernels that trace rays (their shading included: one kernel does
both), of all other kernels, and compilation; the rest is Python, NumPy, SciPy, torch and the networks. The history
waits for every kernel, so phases are timed without it, in a run of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.common import Section, seconds, table
from raytrace_face.config import Config, Quality
from raytrace_face.types import Photo

QUALITIES: tuple[Quality, ...] = ("preview", "standard")


@dataclass
class Kernels:
    """Milliseconds by what a kernel does."""

    tracing: float = 0.0
    other: float = 0.0
    compiling: float = 0.0
    launches: int = 0
    rays: list[int] = field(default_factory=list)
    """Lanes of each kernel that traces."""

    def add(self, entries: Sequence[dict[str, Any]]) -> None:
        """Take in entries of `drjit.kernel_history()`."""
        for entry in entries:
            self.launches += 1
            self.compiling += entry.get("codegen_time", 0) + entry.get("backend_time", 0)
            if traces_rays(entry):
                self.tracing += entry["execution_time"]
                self.rays.append(entry["size"])
            else:
                self.other += entry["execution_time"]


def traces_rays(entry: dict[str, Any]) -> bool:
    """Whether a kernel calls Embree (its LLVM code passes the ray context "in_ctx") or OptiX."""
    if entry.get("uses_optix"):
        return True
    code = entry.get("ir")
    return code is not None and "_in_ctx_" in code.getvalue()


def phases(photo: Photo, config: Config, shown: bool) -> tuple[dict[str, Any], str]:
    """Seconds by phase and by kind of work of a warm run, and a note on the rays."""
    from raytrace_face.fit.reconstruct import reconstruct

    reconstruct(photo, config, progress=shown)
    import drjit as dr  # not before the backend is started

    result = reconstruct(photo, config, progress=shown)
    kernels = Kernels()
    with dr.scoped_set_flag(dr.JitFlag.KernelHistory, True):
        dr.kernel_history_clear()
        watched = seconds(lambda: reconstruct(photo, config, progress=shown))
        kernels.add(dr.kernel_history())
    work = {"tracing": kernels.tracing, "other kernels": kernels.other, "compiling": kernels.compiling}
    share = {f"{k} %": ms / 10 / watched for k, ms in work.items()}
    share["rest %"] = 100 - sum(share.values())
    lanes = sum(kernels.rays)
    note = (
        f"{config.quality}: {lanes / 1e6:.0f} M ray lanes in {len(kernels.rays)} tracing kernels, {kernels.launches} "
        f"launches in all, {lanes / 1e3 / max(kernels.tracing, 1e-9):.0f} M lanes a second of tracing."
    )
    found = {k: result.metrics[k] for k in ("psnr_stage1_db", "psnr_db")}
    return {"quality": config.quality, **result.timings, **share, **found}, note


def section(photo: Photo, config: Config, shown: bool) -> Section:
    """Phases of `QUALITIES`."""
    found = [phases(photo, replace(config, quality=quality), shown) for quality in QUALITIES]
    rows = [row for row, _ in found]
    names = [k for k in rows[0] if not k.startswith("psnr") and not k.endswith("%")]
    kinds = [k for k in rows[0] if k.endswith("%")]
    by_phase = table([names[0], *(f"{n} s" for n in names[1:])], [[r[k] for k in names] for r in rows])
    by_kind = table(["quality", *kinds], [[r["quality"], *(r[k] for k in kinds)] for r in rows], 0)
    text = "\n\n".join(["Second run in the process.", by_phase, by_kind, *(note for _, note in found)])
    return Section("phases", "Time by phase, and share of ray tracing", text, rows)
