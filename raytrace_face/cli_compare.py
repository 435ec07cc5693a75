"""`raytrace-face compare RESULT... --out ...`: results, renderers and settings side by side (docs/export.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from raytrace_face.config import Colour
from raytrace_face.errors import InputError

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction

Flag = tyro.conf.FlagCreatePairsOff[bool]
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
Renderers = tuple[Literal["own", "mitsuba", "mitsuba-stock"], ...]


def compare(
    results: Positional[tuple[Path, ...]],
    *,
    out: Path,
    photo: OptionalPath = None,
    colour: Colour = "srgb",
    spp: tuple[int, ...] = (64,),
    renderer: Renderers = ("own",),
    no_shadows: Flag = False,
    seed: int = 0,
    force: Flag = False,
    quiet: Flag = False,
) -> None:
    """Compare results: a sheet of pictures, and tables of figures.

    Results of one photo are scored in the region that all of them fitted, those of different photos each in its own.

    Args:
        results: one or more folders written by `reconstruct`.
        out: folder for sheet.png, compare.md and compare.json, or a .png for the sheet alone.
        photo: photo to score all results against, of the size of theirs (default: the one in each result).
        colour: how 8- and 16-bit pixels of --photo are encoded: srgb or linear.
        spp: rays a pixel; several numbers are compared with each other.
        renderer: own, and Mitsuba's path tracer on the exported scenes: mitsuba (our skin), mitsuba-stock.
        no_shadows: compare also with our own rendering without shadows.
        seed: another seed gives other noise.
        force: replace an earlier comparison.
        quiet: no progress and no tables.
    """
    from raytrace_face.output import check_file, check_output

    if not results:
        raise InputError("no result is given: give one or more folders written by reconstruct")
    for rays in spp or (0,):
        if not 1 <= rays <= 65536:
            raise InputError(f"spp is {rays}: it must lie in [1, 65536]")
    sheet_only = out.suffix.lower() == ".png"
    (check_file if sheet_only else check_output)(out, force)

    from tqdm import tqdm

    from raytrace_face import compare as measure
    from raytrace_face import compare_sheet
    from raytrace_face.capture.photo import load_photo
    from raytrace_face.measure import perceptual
    from raytrace_face.output import new_file, new_folder, write_json

    faces = _load(results)
    shown = measure.views(faces, None if photo is None else load_photo(photo, colour))
    found = measure.entries(
        faces,
        shown,
        measure.settings(renderer, spp, no_shadows),
        perceptual.st_lpips if perceptual.available() else None,
        seed,
        lambda todo: iter(tqdm(todo, "compare", unit="picture", disable=quiet, leave=False)),
    )
    between = measure.pairs(faces)
    rows, pair_rows = compare_sheet.entry_rows(found, faces), compare_sheet.pair_rows(between)
    tables = "\n\n".join(compare_sheet.markdown(table) for table in (rows, pair_rows) if table)
    sheet = compare_sheet.draw(found, faces, between)
    if sheet_only:
        with new_file(out, force) as temporary:
            sheet.save(temporary, "PNG")
    else:
        with new_folder(out, force) as folder:
            sheet.save(folder / "sheet.png")
            (folder / "compare.md").write_text(tables + "\n", encoding="utf-8")
            write_json(folder / "compare.json", {"rendered": rows, "pairs": pair_rows, "seed": seed})
    if not quiet:
        print(f"{tables}\n\ncomparison  {out}")


def _load(paths: tuple[Path, ...]) -> dict[str, Reconstruction]:
    """Results by the names of their folders; by their whole paths where names are alike."""
    from raytrace_face.result import Reconstruction

    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise InputError("one result is given twice: give each once, or compare settings with --spp and --renderer")
    return {name: Reconstruction.load(path) for name, path in zip(names, paths, strict=True)}
