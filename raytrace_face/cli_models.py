"""`raytrace-face models list | add | show | remove | get`: the library of face models (docs/face-models.md)."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from raytrace_face.errors import InputError

if TYPE_CHECKING:
    from raytrace_face.face.archive import About
    from raytrace_face.face.model import FaceModel

Flag = tyro.conf.FlagCreatePairsOff[bool]
_unset = {"help_behavior_hint": ""}
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", **_unset)]
OptionalText = Annotated[str | None, tyro.conf.arg(metavar="NAME", **_unset)]
MODES_RANGE = (1, 1000)
SAID = ("format", "citation", "limits")
"""Entries of a model's provenance that are shown by other names."""


def list_models() -> None:
    """List the face models that there are: the embedded one, and those of the library."""
    from raytrace_face.face.library import EMBEDDED, home
    from raytrace_face.face.library import list_models as entries
    from raytrace_face.face.store import load_embedded

    rows = [(EMBEDDED, _described(load_embedded()))]
    rows += [(e.name, f"DAMAGED: {e.problem}" if e.about is None else _summary(e.about)) for e in entries()]
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {text}" for name, text in rows))
    print(f"\nlibrary  {home()}")


def add(
    path: Positional[Path],
    *,
    name: OptionalText = None,
    albedo: OptionalPath = None,
    modes: int = 100,
    seed: int = 0,
    force: Flag = False,
    quiet: Flag = False,
) -> None:
    """Add a face model that you have to the library: convert it once, and make what its files do not hold.

    Args:
        path: file or folder of the model: ICT-FaceKit, BFM, FLAME, GNM; or a model folder of another library.
        name: what to call it; default: what its format is called.
        albedo: AlbedoMM's file that goes with the model.
        modes: most identity modes to keep, [1, 1000]; they come by falling variance.
        seed: seed of the random heads that the landmarks are calibrated on.
        force: replace the model of this name.
        quiet: no progress and no summary.
    """
    from raytrace_face.face import archive, library

    begin = time.perf_counter()
    low, high = MODES_RANGE
    if not low <= modes <= high:
        raise InputError(f"modes is {modes}: it must lie in [{low}, {high}]")
    if seed < 0:
        raise InputError(f"seed is {seed}: it must be at least 0")
    for given, what in ((path, "face model"), (albedo, "albedo model")):
        if given is not None and not given.exists():
            raise InputError(f"{what} {str(given)!r} does not exist: check the path")
    if name is not None:
        library.check_free(name, force)  # before the work
    if (path / archive.DESCRIPTION).is_file():
        if albedo is not None:
            raise InputError(f"{str(path)!r} is a finished model folder: --albedo goes with a model's own files only")
        model, source = archive.load(path), archive.about(path).source
        chosen = model.name if name is None else name
        library.check_free(chosen, force)
        model = replace(model, name=chosen)
        sheet = path / archive.SHEET
        folder = library.add(model, source, partial(shutil.copyfile, sheet) if sheet.is_file() else None, force)
    else:
        from raytrace_face.adopt import adopt
        from raytrace_face.adopt.sheet import draw
        from raytrace_face.face.formats.detect import read

        raw = read(path, albedo=albedo, modes=modes)
        chosen = library.suggested_name(raw.format) if name is None else name
        library.check_free(chosen, force)
        if not quiet:
            print(f"recognised  {raw.format} {raw.version}".rstrip())
        model = adopt(raw, chosen, seed=seed, quiet=quiet)
        source = archive.Source(raw.format, raw.version, raw.citation, raw.limits)
        folder = library.add(model, source, lambda to: draw(model).save(to), force)
    if not quiet:
        print(_text(archive.about(folder)))
        print(f"time        {time.perf_counter() - begin:.1f} s")
        print(f"model       {folder}  (look at {folder / archive.SHEET})")
        print(f"use it      raytrace-face reconstruct photo.jpg --face-model {chosen}")


def show(name: Positional[str], *, out: OptionalPath = None, force: Flag = False) -> None:
    """Say what a face model is, under which licence, with which limits; and where its contact sheet lies.

    Args:
        name: embedded, a name of the library, or the path of a model folder.
        out: write the contact sheet there too: .png.
        force: replace an existing picture.
    """
    from raytrace_face.face import archive, library
    from raytrace_face.output import new_file
    from raytrace_face.picture import check_file

    if out is not None:
        check_file(out, force, (".png",))
    model = library.find(name)  # all of it, so that damage shows
    if name == library.EMBEDDED:
        counts = archive.counts_of(model)
        print(_text(archive.About(model.name, model.licence, model.provenance, model.expression_names, counts, "")))
        sheet = None
    else:
        folder = library.locate(name)
        sheet = folder / archive.SHEET
        print(f"{_text(archive.about(folder))}\nmodel       {folder}")
        if sheet.is_file():
            print(f"sheet       {sheet}")
    if out is not None:
        with new_file(out, force) as temporary:
            if sheet is not None and sheet.is_file():
                shutil.copyfile(sheet, temporary)
            else:
                from raytrace_face.adopt.sheet import draw

                draw(model).save(temporary)
        print(f"picture     {out}")


def remove(name: Positional[str]) -> None:
    """Take a face model out of the library. The files that it was made from stay where they are.

    Args:
        name: its name.
    """
    from raytrace_face.face import library

    print(f"removed     {library.remove(name)}")


def get(
    what: Positional[Literal["ict"]],
    *,
    name: OptionalText = None,
    modes: int = 100,
    force: Flag = False,
    quiet: Flag = False,
) -> None:
    """Download a face model that may be had without a contract, and add it to the library.

    Args:
        what: ict: ICT-FaceKit (MIT licence), from its public repository.
        name: what to call it; default ict.
        modes: most identity modes to keep, [1, 1000].
        force: replace the model of this name.
        quiet: no progress and no summary.
    """
    from raytrace_face.face import library
    from raytrace_face.face.formats.download import get_ict

    chosen = what if name is None else name
    library.check_free(chosen, force)  # before the download
    files = get_ict(library.home() / "downloads" / what, quiet=quiet)
    add(files, name=chosen, modes=modes, force=force, quiet=quiet)


COMMANDS: dict[str, Any] = {"list": list_models, "add": add, "show": show, "remove": remove, "get": get}


def _described(model: FaceModel) -> str:
    from raytrace_face.face.archive import counts_of

    return f"{model.name}: {_counts(counts_of(model))}; {model.licence}"


def _summary(about: About) -> str:
    kind = f"{about.source.format} {about.source.version}".strip() or about.name
    return f"{kind}: {_counts(about.counts)}; {about.licence}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)


def _text(about: About) -> str:
    """What is known of a model, for people."""
    source = about.source
    lines = [
        ("name", about.name),
        ("format", f"{source.format} {source.version}".strip()),
        ("holds", _counts(about.counts)),
        ("licence", about.licence),
        ("cite", source.citation),
        *(("limit", limit) for limit in source.limits),
        *(item for item in about.provenance.items() if item[0] not in SAID),
    ]
    return "\n".join(f"{name:<11} {' '.join(text.split())}" for name, text in lines if text)
