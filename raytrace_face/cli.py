"""The command line: one function a command (some in the `cli_*` modules), and two groups of commands.

Nothing heavy is imported before it is needed, so that `--help` is instant. Errors that a person can act on are one
line on standard error and exit code 2; Ctrl-C is exit code 130; neither leaves anything half-written.
"""

from __future__ import annotations

import functools
import operator
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import tyro
from tyro.conf import Positional

from raytrace_face import cli_edit, cli_models, cli_train
from raytrace_face.benchmark.commands import COMMANDS as BENCHMARK
from raytrace_face.cli_compare import compare
from raytrace_face.cli_export import export
from raytrace_face.cli_predict import predict
from raytrace_face.config import Colour, Config, Device, Quality, Solver, Start
from raytrace_face.errors import InputError, OutputError, RaytraceFaceError
from raytrace_face.evaluate import geometry, images

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction
    from raytrace_face.types import Photo

PROGRAM = "raytrace-face"
DESCRIPTION = "Geometry, reflectance, light and self-shadows of a face from one photograph. --version: the version."

Flag = tyro.conf.FlagCreatePairsOff[bool]
_unset = {"help_behavior_hint": ""}  # "(default: None)" says nothing: the default is the config's
OptionalInt = Annotated[int | None, tyro.conf.arg(metavar="INT", **_unset)]
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", **_unset)]
OptionalModel = Annotated[str | None, tyro.conf.arg(metavar="NAME_OR_PATH", **_unset)]
OptionalQuality = Annotated[Quality | None, tyro.conf.arg(metavar="{preview,standard,high}", **_unset)]
OptionalSolver = Annotated[Solver | None, tyro.conf.arg(metavar="{transport,montecarlo}", **_unset)]
OptionalStart = Annotated[Start | None, tyro.conf.arg(metavar="{landmarks,encoder}", **_unset)]
OptionalDevice = Annotated[Device | None, tyro.conf.arg(metavar="{auto,llvm,cuda}", **_unset)]
OptionalColour = Annotated[Colour | None, tyro.conf.arg(metavar="{srgb,linear}", **_unset)]


def reconstruct(
    photo: Positional[Path],
    *,
    out: OptionalPath = None,
    force: Flag = False,
    quality: OptionalQuality = None,
    solver: OptionalSolver = None,
    start: OptionalStart = None,
    weights: OptionalPath = None,
    seed: OptionalInt = None,
    deterministic: Flag = False,
    iterations: OptionalInt = None,
    config: OptionalPath = None,
    face: OptionalInt = None,
    device: OptionalDevice = None,
    colour: OptionalColour = None,
    face_model: OptionalModel = None,
    checkpoint: OptionalPath = None,
    quiet: Flag = False,
    no_shadows: Flag = False,
    no_report: Flag = False,
) -> None:
    """Reconstruct a face from a photograph and write a result folder.

    Options left out keep the value of --config, else the default.

    Args:
        photo: the photograph: JPEG, PNG, WebP, TIFF, BMP, PPM, EXR or HDR.
        out: result folder; default: the photo's name with _face, in the current folder.
        force: replace an existing result folder.
        quality: preview, standard (default) or high.
        solver: transport (default) or montecarlo, the published way for comparison.
        start: landmarks (default), or encoder: where its network sees the face, in half of the time.
        weights: file of `train export` for --start encoder; default: the shipped weights.
        seed: seed of all randomness (default 0).
        deterministic: one thread; the same seed then gives the same bytes on the same machine.
        iterations: gradient steps of each stage, instead of the quality's own.
        config: TOML file with the settings of raytrace_face.Config.
        face: which face, 0 = the largest (default).
        device: auto (default), llvm (CPU) or cuda.
        colour: how 8- and 16-bit pixels are encoded: srgb (default) or linear.
        face_model: embedded (default), the name of a model of the library (`models list`), or a model folder.
        checkpoint: folder in which the work is saved as it goes, and resumed from.
        quiet: no progress and no summary.
        no_shadows: leave self-shadows out of the light transport, to see what they buy.
        no_report: do not write report.html, which takes some seconds (`report` writes it later).
    """
    from raytrace_face.capture.photo import load_photo

    options: dict[str, Any] = {
        "quality": quality,
        "solver": solver,
        "start": start,
        "weights": None if weights is None else str(weights),
        "seed": seed,
        "deterministic": True if deterministic else None,
        "iterations": iterations,
        "face": face,
        "device": device,
        "colour": colour,
        "face_model": face_model,
    }
    settings = settings_of(config, options, no_shadows)
    folder = default_folder(photo) if out is None else out
    _check_folder(folder, force, checkpoint)
    _check_model(settings)
    _reconstruct(load_photo(photo, settings.colour), settings, folder, force, checkpoint, quiet, not no_report)


def demo(
    *,
    out: Path = Path("astronaut_face"),
    force: Flag = False,
    quality: Quality = "standard",
    seed: int = 0,
    deterministic: Flag = False,
    device: Device = "auto",
    face_model: str = "embedded",
    quiet: Flag = False,
) -> None:
    """Reconstruct the photograph of astronaut Eileen Collins (NASA, public domain) that scikit-image carries.

    Args:
        out: result folder.
        force: replace an existing result folder.
        quality: preview, standard or high.
        seed: seed of all randomness.
        deterministic: one thread; the same seed then gives the same bytes on the same machine.
        device: auto, llvm (CPU) or cuda.
        face_model: embedded, the name of a model of the library, or a model folder.
        quiet: no progress and no summary.
    """
    settings = Config(quality=quality, seed=seed, deterministic=deterministic, device=device, face_model=face_model)
    settings.resolved()
    _check_folder(out, force, None)
    _check_model(settings)
    from skimage.data import astronaut

    from raytrace_face.capture.photo import photo_from_array

    photo = photo_from_array(astronaut(), name="astronaut.png")
    _reconstruct(photo, settings, out, force, None, quiet)


def render(
    result: Positional[Path], *, out: Path, spp: int = 64, seed: int = 0, force: Flag = False, no_shadows: Flag = False
) -> None:
    """Render a result folder again, on the fitted window of its photo.

    Args:
        result: folder written by `reconstruct`.
        out: picture to write: .png (sRGB) or .exr (linear).
        spp: rays a pixel.
        seed: another seed gives other noise.
        force: replace an existing picture.
        no_shadows: let light through the head.
    """
    if not 1 <= spp <= 65536:
        raise InputError(f"spp is {spp}: it must lie in [1, 65536]")
    from raytrace_face.picture import check_file, write_picture
    from raytrace_face.result import Reconstruction

    check_file(out, force)
    write_picture(out, Reconstruction.load(result).render(spp=spp, seed=seed, shadows=False if no_shadows else None))


def report(result: Positional[Path]) -> None:
    """Write report.html into a result folder, anew where there is one: the result on one page, with its light stage.

    Args:
        result: folder written by `reconstruct`.
    """
    from raytrace_face.report import write
    from raytrace_face.result import Reconstruction

    write(Reconstruction.load(result), result)
    print(f"report      {result / 'report.html'}")


def doctor(*, device: Device = "auto") -> int:
    """Print versions, libLLVM, cores, memory and embedded models, and what to do about anything wrong.

    Args:
        device: auto, llvm (CPU) or cuda.
    """
    from raytrace_face.doctor import examine

    report = examine(device)
    print(report.text())
    return 1 if report.problems else 0


EVALUATE: dict[str, Any] = {
    "geometry": geometry.geometry,
    "images": images.images,
    "albedo": images.albedo,
    "normals": images.normals,
    "depth": images.depth,
    "light": images.light,
}
"""The commands under `evaluate`, by name."""


def group(summary: str, commands: dict[str, Any]) -> Any:
    """A command that has commands of its own (two or more)."""
    members = tuple(Annotated[Any, tyro.conf.subcommand(name=name, constructor=f)] for name, f in commands.items())

    def choose(command: Any) -> int:
        return int(command or 0)

    choose.__doc__ = summary
    union: Any = functools.reduce(operator.or_, members)
    choose.__annotations__["command"] = tyro.conf.OmitSubcommandPrefixes[tyro.conf.OmitArgPrefixes[union]]  # type: ignore[misc]
    return choose


COMMANDS: dict[str, Any] = {
    "reconstruct": reconstruct,
    "demo": demo,
    "render": render,
    "report": report,
    **cli_edit.COMMANDS,
    "compare": compare,
    "export": export,
    "evaluate": group("Measure results of this or any other program by the field's own protocols.", EVALUATE),
    "benchmark": group("Make benchmarks, and run methods through them.", BENCHMARK),
    "models": group("The library of face models that you bring (docs/face-models.md).", cli_models.COMMANDS),
    "predict": predict,
    "train": group(
        "Train the encoder, which predicts a face in one pass (docs/encoder.md).",
        {**cli_train.COMMANDS, "data": group("Make and pack training data.", cli_train.DATA)},
    ),
    "doctor": doctor,
}


def settings_of(file: Path | None, options: dict[str, Any], no_shadows: bool = False) -> Config:
    """Configuration from a TOML file and the options that were given (not None), which win; checked.

    Raises:
        InputError: the file cannot be read, or a value is outside its range.
    """
    config = Config() if file is None else Config.from_toml(file)
    config = replace(config, **{name: value for name, value in options.items() if value is not None})
    if no_shadows:
        config = replace(config, light=replace(config.light, shadows=False))
    config.resolved()  # only to check: the fit resolves for itself, and the result records what was asked for
    return config


def default_folder(photo: Path) -> Path:
    """`portrait_face` in the current folder for `anywhere/portrait.jpg`."""
    return Path(f"{photo.stem or 'photo'}_face")


def _check_folder(folder: Path, force: bool, checkpoint: Path | None) -> None:
    from raytrace_face.output import check_output

    check_output(folder, force)
    if checkpoint is not None and checkpoint.exists() and not checkpoint.is_dir():
        raise OutputError(f"checkpoint {str(checkpoint)!r} is not a folder: choose another with --checkpoint")


def _check_model(config: Config) -> None:
    from raytrace_face.face.library import EMBEDDED, locate

    if config.face_model != EMBEDDED:
        locate(config.face_model)


def _reconstruct(
    photo: Photo, config: Config, folder: Path, force: bool, checkpoint: Path | None, quiet: bool, report: bool = True
) -> None:
    from raytrace_face.backend import start

    start(config.device, config.deterministic)
    from raytrace_face.recover import reconstruct as recover

    result = recover(photo, config, progress=not quiet, checkpoint=checkpoint)
    from raytrace_face.report import write

    result.save(folder, force=force, extras=write if report else None)
    if not quiet:
        print(summary(result, folder))


def summary(result: Reconstruction, folder: Path) -> str:
    """A few lines about a result, for people."""
    azimuth, elevation = result.dominant_light_angles()
    lines = []
    if "psnr_db" in result.metrics:
        before = result.metrics.get("psnr_stage1_db", float("nan"))
        lines.append(f"PSNR        {before:.1f} dB after stage 1, {result.metrics['psnr_db']:.1f} dB after stage 2")
    lines.append(
        f"main light  {abs(azimuth):.0f} deg from the image's {'right' if azimuth >= 0 else 'left'}, "
        f"{abs(elevation):.0f} deg {'above' if elevation >= 0 else 'below'}"
    )
    if "total" in result.timings:
        lines.append(f"time        {result.timings['total']:.1f} s")
    lines += [f"warning     {line}" for line in result.warnings]
    look_at = next((name for name in ("report.html", "panel.png") if (folder / name).exists()), "panel.png")
    return "\n".join([*lines, f"result      {folder}  (look at {folder / look_at})"])


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        from raytrace_face import __version__

        print(f"{PROGRAM} {__version__}")
        return 0
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog=PROGRAM, description=DESCRIPTION, args=given or ["--help"]
        )
    except RaytraceFaceError as error:
        return _complain(f"error: {error}", error.exit_code)
    except MemoryError:
        return _complain("error: out of memory: use --quality preview, or close other programs", 2)
    except KeyboardInterrupt as interrupt:
        return _complain(f"interrupted: {str(interrupt) or 'no result was written'}", 130)
    except SystemExit as exit_request:  # tyro: --help is 0, a wrong option 2
        return exit_request.code if isinstance(exit_request.code, int) else 2
    return int(code or 0)


def _complain(message: str, code: int) -> int:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
    return code


def _terminated(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main() -> NoReturn:
    """Entry point of `raytrace-face`."""
    signal.signal(signal.SIGTERM, _terminated)  # so that temporary folders are removed
    sys.exit(run())
