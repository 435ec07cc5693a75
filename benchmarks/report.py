"""Make docs/benchmarks.md from scratch: every figure in it comes out of this command.

    python -m benchmarks.report [--work out/report] [--to docs] [--without-speed] [--weights encoder.safetensors]

Needs the measurement data (RAYTRACE_FACE_DATA with `yaleb` and `ict`; `photos` and `lfw` for an encoder's weights).
Runs are kept in `--work` and resumed from there; the pictures go to `<to>/images`. Text between the tables is in
report.md beside this file; it holds no figures.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from raytrace_face.benchmark.pictures import BAND, stack, strip
from raytrace_face.benchmark.table import markdown
from raytrace_face.errors import InputError

ABLATION_LIGHTS = ("A+000E+00", "A-035E+40")
"""Source photos of the ablation: with them every group of relightings is there, for every subject."""
SHOWN = "yaleB07_A-035E+40"
"""The photo that the ablation's picture shows."""
HEADS, YAWS, KINDS = 4, ("0", "30", "60"), ("soft", "hard", "mixed")


@dataclass(frozen=True)
class Bar:
    """A figure that the project set itself."""

    label: str
    run: str
    figure: str
    limit: float
    better: str
    unit: str = ""
    digits: int = 1


BARS = (
    Bar("6a direction of the light, mean", "yaleb", "light_error_deg", 7, "low", " deg"),
    Bar("6b relight against the real photo, all pairs", "yaleb", "relight_psnr_db", 19.0, "high", " dB"),
    Bar("... SSIM", "yaleb", "relight_ssim", 0.57, "high", "", 3),
    Bar("... front to hard", "yaleb", "front_hard_psnr_db", 19.0, "high", " dB"),
    Bar("... hard to front (shadow removal)", "yaleb", "hard_front_psnr_db", 20.0, "high", " dB"),
    Bar("... hard to hard", "yaleb", "hard_hard_psnr_db", 18.0, "high", " dB"),
    Bar("6c albedo, relative rmse", "yaleb", "albedo_rmse", 0.25, "low", "", 2),
    Bar("... spread over the lights", "yaleb", "albedo_std", 0.20, "low", "", 2),
    Bar("6d cast shadow, IoU", "yaleb", "iou_true_light", 0.50, "high", "", 2),
    Bar("6e normals, mean", "yaleb", "normals_deg", 15, "low", " deg"),
    Bar("pose of synthetic heads", "synthetic", "pose_deg", 1.5, "low", " deg"),
)


def data_folder(name: str) -> Path:
    """A folder of the measurement data.

    Raises:
        InputError: it is not there.
    """
    path = Path(os.environ.get("RAYTRACE_FACE_DATA", ""), name)
    if not os.environ.get("RAYTRACE_FACE_DATA") or not path.is_dir():
        raise InputError(f"data folder {str(path)!r} is not there: set RAYTRACE_FACE_DATA to the folder that has it")
    return path


def command(*words: str) -> None:
    """One command of the program, as a user would type it."""
    print("raytrace-face", *words, flush=True)
    subprocess.run([sys.executable, "-m", "raytrace_face", *words], check=True)


def figures(folder: Path, method: str = "raytrace-face") -> dict[str, dict[str, float]]:
    """Figure -> mean, low, high of a method in a run's table."""
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == method]
    return {r["figure"]: {k: float(r[k] or "nan") for k in ("mean", "low", "high")} for r in rows}


def verdicts(work: Path) -> str:
    """The table of bars."""
    rows = []
    for bar in BARS:
        found = figures(work / f"{bar.run}_results")[bar.figure]
        met = (found["mean"] <= bar.limit) if bar.better == "low" else (found["mean"] >= bar.limit)
        text = "{mean:.{d}f} ({low:.{d}f} to {high:.{d}f}){unit}".format(**found, d=bar.digits, unit=bar.unit)
        rows.append([bar.label, text, f"{bar.limit:g}{bar.unit}", "met" if met else "**missed**"])
    return markdown(["what", "measured", "bar", ""], rows)


def run_all(work: Path, speed: bool, weights: Path | None = None) -> dict[str, float]:
    """Make the benchmarks, run them, and time each step in minutes; what an interrupted run took is kept and added."""
    yale, heads = str(data_folder("yaleb")), str(data_folder("ict"))
    steps: dict[str, Callable[[], None]] = {
        "make": lambda: make_benchmarks(work, yale, heads),
        "yaleb": lambda: _run(work, "yaleb", "raytrace-face", "nothing"),
        "synthetic": lambda: _run(work, "synthetic", "raytrace-face"),
        "ablation": lambda: _run(work, "ablation", "raytrace-face", "ablations", "montecarlo", settings=PREVIEW),
        "shape": lambda: _run(work, "synthetic", "raytrace-face", "landmarks", settings=PREVIEW, out="shape"),
        "edits": lambda: _module("benchmarks.edits", "--bench", str(work / "yaleb"), "--out", str(work / "edits")),
    }
    if weights is not None:
        words = ("--weights", str(weights), "--report", str(work), "--out", str(work / "encoder"))
        steps["encoder"] = lambda: _module("benchmarks.encoder", *words)
    if speed:
        steps["speed"] = lambda: _module("benchmarks.speed", "--out", str(work / "speed"))
    kept = work / "minutes.json"
    minutes: dict[str, float] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for name, step in steps.items():
        begin = time.perf_counter()
        try:
            step()
        finally:
            minutes[name] = minutes.get(name, 0.0) + (time.perf_counter() - begin) / 60
            kept.write_text(json.dumps(minutes), encoding="utf-8")
        print(f"{name}: {minutes[name]:.1f} min", flush=True)
    return minutes


PREVIEW = ("quality=preview", "montecarlo.stage1_iterations=125", "montecarlo.stage2_iterations=60")
"""Settings of the ablations: half the steps of the published solver, which take most of the time."""


def make_benchmarks(work: Path, yale: str, heads: str) -> None:
    """Make the benchmarks that a work folder has not."""
    done = [(work / name / "benchmark.toml").exists() for name in ("yaleb", "ablation", "synthetic")]
    if not done[0]:
        command("benchmark", "make", "yaleb", yale, str(work / "yaleb"))
    if not done[1]:
        command("benchmark", "make", "yaleb", yale, str(work / "ablation"), "--lights", *ABLATION_LIGHTS)
    if not done[2]:
        command("benchmark", "make", "synthetic", heads, str(work / "synthetic"), "--count", str(HEADS),
                "--lights", *KINDS, "--yaw", *YAWS)  # fmt: skip


def _run(work: Path, name: str, *methods: str, settings: Sequence[str] = (), out: str = "") -> None:
    words = ["benchmark", "run", str(work / name), "--method", *methods, "--out", str(work / f"{out or name}_results")]
    command(*words, *(["--set", *settings] if settings else []))


def _module(*words: str) -> None:
    subprocess.run([sys.executable, "-m", *words], check=True)


def body(path: Path) -> str:
    """A file of tables without its title, or a note that it was left out."""
    if not path.exists():
        return "(left out in this run)"
    text = path.read_text(encoding="utf-8").strip()
    return text.split("\n", 1)[1].strip() if text.startswith("#") else text


def panels(picture: Path, row: int, columns: Sequence[int], width: int, height: int) -> list[np.ndarray]:
    """Pictures cut out of an item's strips."""
    image = np.asarray(Image.open(picture))
    top = row * (height + 2 * BAND) + 2 * BAND
    return [image[top : top + height, c * width : (c + 1) * width] for c in columns]


def two_columns(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Strips below each other, the second half of them beside the first."""
    half = -(-len(rows) // 2)
    left, right = stack(rows[:half]), stack(rows[half:])
    right = np.pad(right, ((0, left.shape[0] - right.shape[0]), (8, 0), (0, 0)))
    return np.concatenate([left, right], axis=1)


def draw(work: Path, images: Path) -> None:
    """The pictures of the document: all Yale subjects under one hard light, the ablation of one, synthetic heads."""
    images.mkdir(parents=True, exist_ok=True)
    items = work / "yaleb_results" / "raytrace-face" / "items"
    name = SHOWN.partition("_")[2]
    found = sorted(items.glob(f"*_{name}.png"))
    titles = ["photo", "render", "shadow", "true shadow", "albedo", "true albedo", "relit to front", "real front"]
    rows = []
    for path in found:
        first = panels(path, 0, (0, 1, 3, 4, 5, 6), 168, 192)
        pictures = [*first, *panels(path, 1, (0, 1), 168, 192)]
        rows.append(strip(path.stem, list(zip(titles, pictures, strict=True))))
    Image.fromarray(stack(rows)).save(images / "yaleb.jpg", quality=85)
    rows = []
    ablation = work / "ablation_results"
    for path in sorted(ablation.glob(f"*/items/{SHOWN}.png"), key=lambda p: p.parts[-3] != "raytrace-face"):
        first = panels(path, 0, (1, 2, 5), 168, 192)
        pictures = [*first, *panels(path, 1, (0, 1), 168, 192)]
        labels = ["render", "shadow, own light", "albedo", "relit to front", "real front"]
        rows.append(strip(path.parts[-3], list(zip(labels, pictures, strict=True))))
    Image.fromarray(two_columns(rows)).save(images / "ablation.jpg", quality=85)
    high = slice(192 + 2 * BAND, 2 * (192 + 2 * BAND))  # the pair with the light of the first picture
    edits = [np.asarray(Image.open(path))[high] for path in sorted((work / "edits").glob("*.png"))]
    Image.fromarray(two_columns(edits)).save(images / "edits.jpg", quality=85)
    heads = work / "synthetic_results" / "raytrace-face" / "items"
    chosen = [
        heads / f"ict{n}_{kind}_yaw{yaw}.png" for n, kind, yaw in ((0, "soft", 0), (1, "hard", 30), (2, "mixed", 60))
    ]
    Image.fromarray(stack([np.asarray(Image.open(p)) for p in chosen])).save(images / "synthetic.jpg", quality=85)
    Image.open(work / "yaleb_results" / "plot.png").save(images / "yaleb_plot.png")


def machine() -> str:
    """Where the figures were taken."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} CPU cores, {memory:.0f} GiB, no GPU; Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("out/report"), help="folder for runs, resumed from there")
    parser.add_argument("--to", type=Path, default=Path("docs"), help="folder for benchmarks.md and images/")
    parser.add_argument("--without-speed", action="store_true", help="leave the timings out")
    parser.add_argument("--weights", type=Path, help="weights of an encoder, whose figures are added")
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    minutes = run_all(args.work, not args.without_speed, args.weights)
    draw(args.work, args.to / "images")
    spent = ", ".join(f"{name} {value:.1f}" for name, value in minutes.items())
    template = Template((Path(__file__).with_name("report.md")).read_text(encoding="utf-8"))
    values = {
        "verdicts": verdicts(args.work),
        "machine": machine(),
        "minutes": f"{sum(minutes.values()):.0f}",
        "spent": spent,
        **{run: body(args.work / f"{run}_results" / "table.md") for run in ("yaleb", "ablation", "synthetic", "shape")},
        "edits": body(args.work / "edits" / "table.md"),
        "encoder": body(args.work / "encoder" / "encoder.md"),
        "speed": body(args.work / "speed" / "speed.md"),
    }
    try:
        text = template.substitute(values)
    except KeyError as error:
        raise InputError(f"report.md asks for {error}, which is not made here") from error
    (args.to / "benchmarks.md").write_text(text, encoding="utf-8")
    print(f"{args.to / 'benchmarks.md'}: {values['minutes']} minutes ({spent})")


if __name__ == "__main__":
    main()
