"""The figures of an encoder's weights against the project's own bars, the optimiser, and doing nothing.

    RAYTRACE_FACE_DATA=FOLDER python -m benchmarks.encoder --weights encoder.safetensors --out out/encoder

Needs the measurement data (`yaleb`, `ict`, `photos` and `lfw`); `--sittings` adds the errors by skin tone. Benchmarks
and the optimiser's figures on them are taken from the work folder of `benchmarks.report`; what it has not made is made.
The optimiser's own results at preview quality are kept in `--optimiser`. A part that is done for the same weights is
not done again. Leaves encoder.md, the rows behind it as JSON, tables of the runs, and sheets of pictures.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import encoder_doubts, encoder_photos, encoder_tones
from benchmarks.common import demo_photo
from benchmarks.encoder_photos import PREVIEW, Both
from benchmarks.encoder_tables import ENCODER, Found, Row, text
from benchmarks.report import data_folder, make_benchmarks
from raytrace_face.benchmark import report
from raytrace_face.benchmark.methods import DEFAULT, METHODS, encoder
from raytrace_face.benchmark.spec import load
from raytrace_face.benchmark.table import Run
from raytrace_face.errors import InputError
from raytrace_face.learn.many import predictor
from raytrace_face.output import sha256, write_json

SHOWN_LIGHT = "A-035E+40"
"""The Yale photos of the sheet, one a subject."""
LFW, BROKEN = 60, 30
"""Photos of LFW that are looked at as they are, and how many of them broken in every way."""


def kept(path: Path, key: str, make: Callable[[], Sequence[Mapping[str, Any]]]) -> list[Row]:
    """Rows from a file if they were made of the same, else from `make`, and into the file."""
    if path.is_file():
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["key"] == key:
            return [{k: math.nan if v is None else v for k, v in row.items()} for row in values["rows"]]
    rows = [dict(row) for row in make()]
    write_json(path, {"key": key, "rows": rows})
    return rows


def measure(args: argparse.Namespace) -> Found:
    """Run every part, and say how many minutes each took."""
    make_benchmarks(args.report, str(data_folder("yaleb")), str(data_folder("ict")))
    weights = {ENCODER: args.weights, **args.compare}
    methods = [encoder(path, name) for name, path in weights.items()]
    preview = {"quality": PREVIEW.quality}

    def run(name: str, chosen: Sequence[Any], out: Path) -> list[Run]:
        benchmark = load(args.report / name)
        return report.run(benchmark, chosen, preview, out / f"{name}_results", args.jobs, None, args.quiet)[0]

    timed = Timed(args.quiet)
    (optimiser,) = timed("optimiser", lambda: run("synthetic", [METHODS[DEFAULT]], args.optimiser))
    runs = {
        "yaleb": timed("yaleb", lambda: run("yaleb", methods[:1], args.out)),
        "synthetic": timed("synthetic", lambda: run("synthetic", methods, args.out)),
    }
    if args.compare:
        runs["ablation"] = timed("ablation", lambda: run("ablation", methods, args.out))
    stamps = {name: sha256(path) for name, path in weights.items()}
    photos = timed("photos", lambda: kept(args.out / "photos.json", str(stamps), lambda: photo_rows(args, weights)))
    doubts = timed("doubts", lambda: kept(args.out / "doubts.json", stamps[ENCODER], lambda: doubt_rows(args)))
    tones: list[Row] = []
    if args.sittings is not None:
        key = f"{stamps[ENCODER]} {args.sittings.resolve()}"
        tones = timed("tones", lambda: kept(args.out / "tones.json", key, lambda: tone_rows(args)))
    (times,) = timed("times", lambda: kept(args.out / "times.json", stamps[ENCODER], lambda: time_rows(args)))
    return Found(runs, optimiser, photos, doubts, tones, times, args.report)


class Timed:
    """Calls steps and prints their minutes."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def __call__(self, name: str, step: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        found = step()
        if not self.quiet:
            print(f"{name}: {(time.perf_counter() - begin) / 60:.1f} min", flush=True)
        return found


def photo_rows(args: argparse.Namespace, weights: Mapping[str, Path]) -> list[Row]:
    """Agreement of every weights' predictions with the photos, and the sheets of the weights that are judged."""
    from raytrace_face.capture import load_photo
    from raytrace_face.learn.pack import photos_in

    sets = {
        "photos": (photos_in(data_folder("photos")), "srgb"),
        "yaleb": (sorted((args.report / "yaleb" / "photos").glob(f"*_{SHOWN_LIGHT}.png")), "linear"),
    }
    rows = []
    for name, path in weights.items():
        network = predictor(path)
        for group, (paths, colour) in sets.items():
            config, shown = replace(PREVIEW, colour=colour), []
            for one in paths:
                photo = load_photo(one, colour)
                optimised = encoder_photos.optimised(photo, config, args.optimiser / group / one.stem)
                shown.append(Both(one.stem, network.predict(photo, config), optimised))
            rows += [{"set": group, "photo": b.name, "weights": name, **encoder_photos.agreement(b)} for b in shown]
            if name == ENCODER and shown:
                encoder_photos.sheet(shown).save(args.out / f"{group}.png")
    return rows


def doubt_rows(args: argparse.Namespace) -> list[Row]:
    """What the encoder says of ordinary and of broken photos."""
    from raytrace_face.learn.pack import photos_in

    lfw = encoder_doubts.sample(data_folder("lfw"), LFW, seed=0)
    sets = {"photos": photos_in(data_folder("photos")), "LFW": lfw}
    return encoder_doubts.rows_of(predictor(args.weights), sets, lfw[:BROKEN], args.quiet)


def tone_rows(args: argparse.Namespace) -> Sequence[Mapping[str, Any]]:
    """Figures of held-out sittings."""
    return encoder_tones.held_out_rows(predictor(args.weights), args.sittings, quiet=args.quiet)


def time_rows(args: argparse.Namespace) -> list[Row]:
    """Times on the demo photo."""
    return [encoder_photos.times(predictor(args.weights), demo_photo())]


def named(value: str) -> tuple[str, Path]:
    """A name and a file of `--compare NAME=FILE`."""
    name, sign, path = value.partition("=")
    if not (sign and name and Path(path).is_file()) or name == ENCODER:
        raise argparse.ArgumentTypeError(f"{value!r} is no NAME=FILE of weights that exist, or is called {ENCODER!r}")
    return name, Path(path)


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Options; `compare` as a dictionary."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoder", description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, required=True, help="file of `train export`")
    parser.add_argument("--out", type=Path, default=Path("out/encoder"), help="folder for figures and pictures")
    parser.add_argument("--report", type=Path, default=Path("out/report"), help="work folder of benchmarks.report")
    parser.add_argument("--optimiser", type=Path, help="folder that keeps the optimiser's results; default in --out")
    parser.add_argument("--sittings", type=Path, help="sittings of training, of which the last were held out")
    parser.add_argument("--compare", type=named, nargs="+", default=[], metavar="NAME=FILE", help="other weights")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="photos of a benchmark at a time")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    args = parser.parse_args(argv)
    if not args.weights.is_file():
        parser.error(f"weights {str(args.weights)!r} do not exist: give a file of `train export`")
    args.compare = dict(args.compare)
    args.optimiser = args.out / "optimiser" if args.optimiser is None else args.optimiser
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parsed(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        found = measure(args)
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
    (args.out / "encoder.md").write_text(text(found), encoding="utf-8")
    print(text(found))


if __name__ == "__main__":
    main()
