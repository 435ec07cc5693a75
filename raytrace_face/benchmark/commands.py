"""`raytrace-face benchmark make | run`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from raytrace_face.benchmark.methods import ABLATIONS, DEFAULT
from raytrace_face.errors import InputError

Flag = tyro.conf.FlagCreatePairsOff[bool]
_unset = {"help_behavior_hint": ""}
Repeated = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", **_unset)]
OptionalFolder = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", **_unset)]
OptionalText = Annotated[str | None, tyro.conf.arg(metavar="ADDRESS", **_unset)]
OptionalCount = Annotated[int | None, tyro.conf.arg(metavar="INT", **_unset)]
Kind = Literal["synthetic", "yaleb", "now", "micc"]


def make(
    kind: Positional[Kind],
    data: Positional[Path],
    out: Positional[Path],
    *,
    subjects: Repeated = (),
    lights: Repeated = (),
    count: int = 6,
    yaw: tuple[float, ...] = (0.0, 30.0, 60.0),
    modes: Literal["all", "even", "odd"] = "all",
    seed: int = 0,
    force: Flag = False,
    quiet: Flag = False,
) -> None:
    """Make a benchmark folder from data that you have.

    Args:
        kind: synthetic (from an ICT-FaceKit folder), yaleb (CroppedYale), now (NoW validation set), micc (Florence).
        data: folder with that data.
        out: benchmark folder to write.
        subjects: yaleb, now, micc: only these people.
        lights: yaleb: names as A+035E+40; synthetic: soft, hard, top, mixed (default soft, hard, mixed).
        count: synthetic: heads.
        yaw: synthetic: degrees, up to 60.
        modes: synthetic: which of ICT's identity modes the heads are drawn from.
        seed: synthetic: seed of all randomness.
        force: replace an existing benchmark.
        quiet: no progress.
    """
    if not data.is_dir():
        raise InputError(f"data folder {str(data)!r} does not exist: check the path")
    if kind == "yaleb":
        from raytrace_face.benchmark import make_yaleb

        make_yaleb.make(data, out, subjects=subjects, lights=lights, force=force, quiet=quiet)
    elif kind == "synthetic":
        from raytrace_face.benchmark import make_synthetic

        kinds = lights or ("soft", "hard", "mixed")
        make_synthetic.make(
            data, out, count=count, lights=kinds, yaws=yaw, modes=modes, seed=seed, force=force, quiet=quiet
        )
    else:
        from raytrace_face.benchmark import make_scans

        make_scans.make(kind, data, out, subjects=subjects, force=force, quiet=quiet)


def run(
    folder: Positional[Path],
    *,
    method: Repeated = (DEFAULT,),
    out: OptionalFolder = None,
    set: Repeated = (),
    jobs: OptionalCount = None,
    ray: OptionalText = None,
    quiet: Flag = False,
) -> None:
    """Run methods through a benchmark, and write one table (CSV, Markdown), a plot and a picture an item.

    What is there already is not done again: a run that was interrupted goes on.

    Args:
        folder: benchmark folder, as `benchmark make` writes it.
        method: what to run, the first is what the others are compared to: raytrace-face, montecarlo, no-shadow,
            sh-light, dense-light, least-squares, no-refine, mean-albedo, landmarks, mean-shape, no-symmetry, no-maps,
            nothing, ablations (all that switch an idea off), a folder with results by item id, or weights of an
            encoder (.safetensors).
        out: folder for what comes out; default: the benchmark's name with _results, here.
        set: settings of all methods, as quality=preview or light.max_lights=2.
        jobs: photos at a time; default one a core.
        ray: address of a Ray cluster instead, or auto (a local one, with --jobs workers, if none runs).
        quiet: no progress, no table.
    """
    from raytrace_face.benchmark import report
    from raytrace_face.benchmark.methods import method as named
    from raytrace_face.benchmark.spec import load

    benchmark = load(folder)
    benchmark.check_files()
    names = [n for name in method for n in (ABLATIONS if name == "ablations" else (name,))]
    methods = [named(name) for name in dict.fromkeys(names)]
    twins = [m.name for m in methods if sum(m.name == other.name for other in methods) > 1]
    if twins:
        raise InputError(f"two methods are called {twins[0]!r}: rename one of the paths")
    processes = os.cpu_count() or 1 if jobs is None else jobs
    if processes < 1:
        raise InputError(f"jobs is {processes}: it must be at least 1")
    target = Path(f"{folder.resolve().name}_results") if out is None else out
    runs, text = report.run(benchmark, methods, nested(set), target, processes, ray, quiet)
    if not quiet:
        failed, count = sum(len(r.failed) for r in runs), len(runs) * len(benchmark.items)
        print(f"{text}\n\n{report.times(runs)}\n\nfailed {failed} of {count}; tables and pictures in {target}")


def nested(assignments: tuple[str, ...]) -> dict[str, Any]:
    """`("light.max_lights=2",)` -> `{"light": {"max_lights": 2}}`.

    Raises:
        InputError: an entry without "=", or one that is a value and a table at once.
    """
    values: dict[str, Any] = {}
    for item in assignments:
        key, sign, text = item.partition("=")
        if not sign or not key:
            raise InputError(f"setting is {item!r}: it looks like key=value, as quality=preview")
        node = values
        *groups, last = key.split(".")
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                raise InputError(f"setting is {item!r}, but {group!r} has a value already: leave one of them out")
        node[last] = _value(text)
    return values


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


COMMANDS: dict[str, Any] = {"make": make, "run": run}
