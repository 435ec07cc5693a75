"""How fast the program is on this machine, on the demo photo, as ratios measured in one run.

    python -m benchmarks.speed [--fast] [--out out/speed]

Transport against Monte-Carlo at equal loss; time by phase and the share of it that is ray tracing; cost of transport
against resolution, lights and samples; cores; peak memory. Writes `speed.md` and one CSV a section. Seconds hold for
an otherwise idle machine; ratios suffer less from company.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import floor, growth, processes, solver
from benchmarks.common import Section, demo_photo
from raytrace_face.benchmark.commands import nested
from raytrace_face.config import Config
from raytrace_face.errors import InputError


def machine() -> str:
    """One line on what the figures hold for."""
    import importlib.metadata

    names = ("mitsuba", "drjit", "torch", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}{load}; {versions}."


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Options; `config` and `steps` checked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/speed"), help="folder for tables (default out/speed)")
    parser.add_argument("--fast", action="store_true", help="leave out Monte-Carlo and quality high")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[30, 130], metavar="N", help="Monte-Carlo steps of stage 1, growing"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="setting of all runs, as light.max_lights=2"
    )
    args = parser.parse_args(argv)
    if min(args.steps) < 1 or sorted(set(args.steps)) != args.steps:
        parser.error(f"steps are {args.steps}: they must be at least 1, and grow")
    try:
        args.config = Config.from_dict(nested(tuple(args.set)))
        args.config.resolved()
    except InputError as error:
        parser.error(str(error))
    return args


def parts(args: argparse.Namespace) -> dict[str, Callable[[], Section]]:
    """What is measured, by name, in the order of the report."""
    config, photo, shown = args.config, demo_photo(), not args.quiet
    found: dict[str, Callable[[], Section]] = {}
    if not args.fast:
        found["solvers"] = lambda: solver.section(photo, config, args.steps, shown)
    found["phases"] = lambda: floor.section(photo, config, shown)
    found["growth"] = growth.section
    found["cores"] = lambda: processes.cores_section(config)
    qualities: Any = ("preview", "standard") if args.fast else ("preview", "standard", "high")
    found["memory"] = lambda: processes.memory_section(config, qualities)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    args = parsed(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    texts = [f"## Speed\n\n{machine()}"]
    measures = parts(args)
    with tqdm(total=len(measures), unit="part", disable=args.quiet, dynamic_ncols=True) as bar:
        for name, measure in measures.items():
            bar.set_description(name)
            section = measure()
            section.write(args.out)
            texts.append(section.markdown())
            bar.update()
    text = "\n\n".join(texts)
    (args.out / "speed.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
