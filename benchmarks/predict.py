"""How long `raytrace-face predict` takes for one photo on this machine, by phase, against `reconstruct` in preview.

    python -m benchmarks.predict --weights encoder.safetensors [--photo FILE] [--runs 10] [--out out/predict]

Everything is loaded and has run once. Wall-clock milliseconds, medians of the runs; they hold for an otherwise idle
machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.common import Section, demo_photo, seconds, table
from benchmarks.speed import machine
from raytrace_face.backend import start
from raytrace_face.config import Config
from raytrace_face.types import Photo

PREVIEWS = 3
"""Runs of the reconstruction: each takes as long as twenty predictions."""


def phases(photo: Photo, weights: Path, folder: Path) -> dict[str, Callable[[], Any]]:
    """What is timed, by name: parts of a prediction, the whole of it, and what it spares."""
    from raytrace_face.capture import sight
    from raytrace_face.capture.detector import glance
    from raytrace_face.capture.photo import codes_of
    from raytrace_face.fit.reconstruct import reconstruct
    from raytrace_face.learn.predict import Predictor
    from raytrace_face.retrace import completed

    predictor, preview = Predictor(weights), Config(quality="preview")
    size = preview.resolved().stage2.size
    seen, whole = sight(photo, size), predictor.predict(photo)

    def predicted() -> None:
        predictor.predict(photo).save(folder / "face", force=True)

    return {
        "detection": lambda: glance(codes_of(photo)),
        "detection and landmarks": lambda: sight(photo, size),
        "network": lambda: predictor.look(photo, seen),
        "saving": lambda: whole.save(folder / "face", force=True),
        "predict, photo to folder": predicted,
        "the same with --pictures": lambda: completed(predictor.predict(photo)).save(folder / "face", force=True),
        "reconstruct, preview": lambda: reconstruct(photo, preview, progress=False).save(folder / "face", force=True),
    }


def section(photo: Photo, weights: Path, runs: int, shown: bool) -> Section:
    """Medians of all phases."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        measures = phases(photo, weights, Path(folder))
        with tqdm(total=len(measures), unit="phase", disable=not shown, dynamic_ncols=True) as bar:
            for name, call in measures.items():
                bar.set_description(name)
                call()  # the first compiles
                count = min(runs, PREVIEWS) if name.startswith("reconstruct") else runs
                times = [1000 * seconds(call) for _ in range(count)]
                rows.append({"phase": name, "median_ms": statistics.median(times), "slowest_ms": max(times)})
                bar.update()
    found = {str(row["phase"]): float(row["median_ms"]) for row in rows}
    whole = found["predict, photo to folder"]
    landmarks = found["detection and landmarks"] - found["detection"]
    result = whole - found["detection and landmarks"] - found["network"]
    lines = [[row["phase"], row["median_ms"], row["slowest_ms"]] for row in rows]
    text = (
        f"{table(['phase', 'median, ms', 'slowest, ms'], lines, 0)}\n\n"
        f"{photo.name}, {photo.width} x {photo.height} pixels: detection {found['detection']:.0f}, landmarks "
        f"{landmarks:.0f}, network {found['network']:.0f}, result {result:.0f}, together {whole:.0f} ms: 1/"
        f"{found['reconstruct, preview'] / whole:.0f} of reconstruct --quality preview."
    )
    return Section("predict", "Prediction of one photo", text, rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predict", description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, required=True, help="file of `train export`")
    parser.add_argument("--photo", type=Path, help="default: the demo's, 0.26 megapixels")
    parser.add_argument("--runs", type=int, default=10, help="runs of which the median is taken")
    parser.add_argument("--out", type=Path, default=Path("out/predict"), help="folder for predict.md and predict.csv")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    args = parser.parse_args(argv)
    if args.runs < 1:
        parser.error(f"runs is {args.runs}: it must be at least 1")
    start()
    from raytrace_face.capture import load_photo

    photo = demo_photo() if args.photo is None else load_photo(args.photo)
    found = section(photo, args.weights, args.runs, not args.quiet)
    args.out.mkdir(parents=True, exist_ok=True)
    found.write(args.out)
    text = f"{machine()}\n\n{found.markdown()}"
    (args.out / "predict.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
