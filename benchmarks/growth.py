"""How the cost of transport grows with resolution, lights and samples: seconds = c * size^slope."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.common import Section, seconds, table

REPEATS = 3
"""Runs at each size, of which the fastest counts: whatever disturbs a run makes it slower."""


def slope(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Least-squares slope of log times over log sizes."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def cost(run: Callable[[int], Any], sizes: Sequence[int]) -> list[float]:
    """Seconds at each size, after a run that compiles."""
    found = []
    for size in sizes:
        run(size)
        found.append(min(seconds(lambda s=size: run(s)) for _ in range(REPEATS)))  # type: ignore[misc]
    return found


def section() -> Section:
    """Transport of the embedded head at 900 mm, 128 pixels a side, 42 lights, 4 rays a pixel, and round these."""
    from lightstage.rig import directional_lights, geodesic
    from raytrace_face.backend import start
    from raytrace_face.face.store import load_embedded

    start("auto")
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
    rows, lines = [], []
    for name, run, sizes, note in cases:
        times = cost(run, sizes)
        rows += [{"against": name, "size": n, "seconds": s} for n, s in zip(sizes, times, strict=True)]
        shown = ", ".join(f"{n}: {1000 * s:.0f} ms" for n, s in zip(sizes, times, strict=True))
        lines.append([name, shown, slope(sizes, times), note])
    text = table(["transport cost against", "time (128 px, 42 lights, 4 rays else)", "slope", ""], lines)
    return Section("growth", "Cost of transport", text, rows)
