"""How near the program runs to its floor: the share of time that is ray tracing, and how cost grows.

    python -m benchmarks.floor [--out out/floor]

The share is measured on a warm standard run of the demo photo with Dr.Jit's kernel history: execution time of the
kernels that trace rays (their shading included: one kernel does both), of all other kernels, and compilation; the
rest is Python, NumPy, SciPy, torch and the networks. Cost grows as size^slope; slopes are least squares in log-log.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import add_common, config_of, markdown, publish
from benchmarks.solver import demo_photo


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


def peak_memory_gb() -> float:
    """Largest resident size of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def share(args: argparse.Namespace) -> str:
    """The table of where the time of one photo goes."""
    import drjit as dr

    from raytrace_face.fit.reconstruct import reconstruct

    config, photo = config_of(args), demo_photo()
    reconstruct(photo, config, progress=False)
    kernels = Kernels()
    with dr.scoped_set_flag(dr.JitFlag.KernelHistory, True):
        dr.kernel_history_clear()
        begin = time.perf_counter()
        result = reconstruct(photo, config, progress=False)
        seconds = time.perf_counter() - begin
        kernels.add(dr.kernel_history())
    parts = {
        "kernels that trace rays": kernels.tracing,
        "other kernels": kernels.other,
        "compiling kernels": kernels.compiling,
    }
    parts["Python, NumPy, SciPy, torch, networks"] = 1000 * seconds - sum(parts.values())
    rows = [[name, ms / 1000, f"{ms / 10 / seconds:.0f} %"] for name, ms in parts.items()]
    rows.append(["**all**", seconds, "100 %"])
    phases = ", ".join(f"{k} {v:.1f}" for k, v in result.timings.items())
    rays = sum(kernels.rays)
    note = (
        f"{rays / 1e6:.0f} M ray lanes in {len(kernels.rays)} tracing kernels, {kernels.launches} launches in all, "
        f"{rays / 1e3 / max(kernels.tracing, 1e-9):.0f} M lanes a second of tracing; by phase, s: {phases}; "
        f"peak memory {peak_memory_gb():.2f} GB; PSNR {result.metrics['psnr_db']:.1f} dB."
    )
    return "\n\n".join([markdown(["time goes to", "s", "share"], rows), note])


def slope(sizes: NDArray[np.floating], seconds: NDArray[np.floating]) -> float:
    """Least-squares slope of log seconds over log sizes."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def cost(run: Callable[[int], Any], sizes: Sequence[int], repeats: int = 3) -> list[float]:
    """Fastest of a few runs at each size, seconds."""
    found = []
    for size in sizes:
        run(size)
        found.append(min(_seconds(lambda s=size: run(s)) for _ in range(repeats)))  # type: ignore[misc]
    return found


def _seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def slopes() -> str:
    """The table of transport cost against resolution, lights and samples."""
    from lightstage.rig import directional_lights, geodesic
    from raytrace_face.face.store import load_embedded
    from raytrace_face.tracer.onelight import head_transport
    from raytrace_face.tracer.render import View, all_pixels
    from raytrace_face.tracer.scene import HeadScene
    from raytrace_face.types import Camera

    head = HeadScene(load_embedded())
    T = np.eye(4, dtype=np.float32)
    T[2, 3] = -900
    f0, rough = np.full((64, 64), 0.03, np.float32), np.full((64, 64), 0.5, np.float32)
    directions = geodesic(2).vertices

    def trace(size: int = 128, count: int = 42, samples: int = 4) -> None:
        camera = Camera(size, size, 4.2 * size, (size / 2, size / 2))
        view = View(camera, all_pixels(camera), samples)
        head_transport(head, view, T, directional_lights(directions[:count]), f0, rough, 1)

    cases: list[tuple[str, Callable[[int], Any], tuple[int, ...], str]] = [
        ("pixels a side", lambda n: trace(size=n), (64, 128, 256), "2 is linear in pixels"),
        ("lights", lambda n: trace(count=n), (20, 40, 80, 160), "1 is linear"),
        ("rays a pixel", lambda n: trace(samples=n), (2, 4, 8, 16), "1 is linear"),
    ]
    rows = []
    for name, run, sizes, note in cases:
        seconds = cost(run, sizes)
        shown = ", ".join(f"{n}: {1000 * s:.0f} ms" for n, s in zip(sizes, seconds, strict=True))
        rows.append([name, shown, slope(np.array(sizes), np.array(seconds)), note])
    return markdown(["transport cost against", "time (128 px, 42 lights, 4 rays else)", "slope", ""], rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description=__doc__.split("\n")[0])
    add_common(parser, "out/floor")
    args = parser.parse_args(argv)
    from raytrace_face.backend import start

    start("auto")
    publish(args.out, "floor", "\n\n".join([f"### Floor, {args.quality}, demo photo", share(args), slopes()]))


if __name__ == "__main__":
    main()
