"""The library of brought face models: one folder a model, in the user's data folder (docs/face-models.md).

A folder appears or vanishes in one piece. What lies in it is `face.archive`'s affair.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from raytrace_face.errors import InputError, ModelError, OutputError
from raytrace_face.face.archive import DESCRIPTION, About, Source, about, load, save
from raytrace_face.face.model import FaceModel
from raytrace_face.output import check_output

EMBEDDED = "embedded"
"""The model that comes with the package; it lies in no library."""
HOME_VARIABLE = "RAYTRACE_FACE_HOME"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Entry:
    """A model of the library."""

    name: str
    folder: Path
    about: About | None
    problem: str = ""
    """Why there is no `about`."""


def home() -> Path:
    """Where the library lies: `RAYTRACE_FACE_HOME`, else the platform's folder for the user's data."""
    chosen = os.environ.get(HOME_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("raytrace-face", appauthor=False)


def models_folder() -> Path:
    """The folder whose folders are the models."""
    return home() / "models"


def check_name(name: str) -> str:
    """The name itself, if a model may bear it.

    Raises:
        InputError: it may not.
    """
    if name.lower() == EMBEDDED:
        raise InputError(f"face model name {name!r} means the model of the package: choose another with --name")
    if not NAME.fullmatch(name):
        raise InputError(
            f"face model name {name!r} is not usable: use up to 64 letters, digits, '.', '_' and '-', the first a "
            "letter or digit; choose one with --name"
        )
    return name


def suggested_name(text: str) -> str:
    """A name for a model by what its format is called: "BFM 2019" -> "bfm-2019"."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._") or "model"


def list_models() -> list[Entry]:
    """The models of the library by name, damaged ones too."""
    found = []
    folders = models_folder()
    paths = sorted(folders.iterdir()) if folders.is_dir() else []
    for path in paths:
        if NAME.fullmatch(path.name) and (path / DESCRIPTION).exists():
            try:
                found.append(Entry(path.name, path, about(path)))
            except (InputError, ModelError) as error:
                found.append(Entry(path.name, path, None, str(error)))
    return found


def add(
    model: FaceModel,
    source: Source | None = None,
    sheet: Callable[[Path], object] | None = None,
    force: bool = False,
) -> Path:
    """Put a model into the library under its name; its folder.

    Raises:
        InputError: a name that cannot be used, or that another model bears (unless `force` is set).
        ModelError: the model's arrays do not fit together.
        OutputError: the library cannot be written.
    """
    check_free(model.name, force)
    with _library_errors():
        return save(model, models_folder() / model.name, source, sheet, force)


@contextmanager
def _library_errors() -> Iterator[None]:
    """Errors of writing, in terms of the library."""
    try:
        yield
    except OutputError as error:
        reason = error.__cause__ or error
        raise OutputError(
            f"the library {str(home())!r} cannot be written ({reason}): set {HOME_VARIABLE} to a folder that can"
        ) from error


def check_free(name: str, force: bool = False) -> None:
    """Find out before the work whether a model may be added under a name.

    Raises:
        InputError: it may not, or another bears it (unless `force` is set). Case makes no difference: not all file
            systems know it.
        OutputError: the library cannot be written.
    """
    check_name(name)
    taken = {entry.name.lower(): entry.name for entry in list_models()}.get(name.lower())
    if taken is not None and not (force and taken == name):
        raise InputError(f"face model {taken!r} is in the library: choose another --name, or replace it with --force")
    with _library_errors():
        check_output(models_folder() / name, force=True)


def remove(name: str) -> Path:
    """Take a model out of the library; the folder it lay in. It vanishes in one piece.

    Raises:
        InputError: no such model.
        OutputError: its folder cannot be removed.
    """
    if name == EMBEDDED:
        raise InputError(f"face model {EMBEDDED!r} comes with the package: it cannot be removed")
    folder = models_folder() / name
    if not NAME.fullmatch(name) or not (folder / DESCRIPTION).is_file():
        raise InputError(_unknown(name))
    aside = folder.with_name(f".{name}-removed")
    try:
        os.rename(folder, aside)
        shutil.rmtree(aside)
    except OSError as error:
        raise OutputError(f"face model {name!r} cannot be removed ({error}): check the rights of {folder}") from error
    return folder


def locate(name_or_path: str) -> Path:
    """Folder of a model: by its name in the library, else by its path.

    Raises:
        InputError: neither; a path to a model's own files is told apart from one that does not exist.
    """
    inside = models_folder() / name_or_path
    if NAME.fullmatch(name_or_path) and (inside / DESCRIPTION).is_file():
        return inside
    path = Path(name_or_path).expanduser()
    if (path / DESCRIPTION).is_file():
        return path
    if path.exists():
        raise InputError(
            f"{name_or_path!r} is no model folder: if it is a model's own file or folder, add it first, "
            f"raytrace-face models add {name_or_path} --name NAME, then give that name"
        )
    raise InputError(_unknown(name_or_path))


def find(name_or_path: str) -> FaceModel:
    """A model by its name in the library, by the path of its folder, or "embedded".

    Raises:
        InputError: there is none.
        ModelError: it is damaged.
    """
    if name_or_path == EMBEDDED:
        from raytrace_face.face.store import load_embedded

        return load_embedded()
    return _cached(locate(name_or_path))


def of_result(name: str, sha256: str, place: str) -> FaceModel:
    """The model that a stored result belongs to, known by the digest of its arrays.

    Args:
        name: what the result calls it.
        sha256: `About.arrays_sha256`.
        place: the name or path that the reconstruction was given.

    Raises:
        InputError: it is neither in the library nor at that path; or the one of this name is another.
        ModelError: it is damaged.
    """
    folders = [entry.folder for entry in list_models() if entry.about is not None]
    if (Path(place) / DESCRIPTION).is_file():
        folders.insert(0, Path(place))
    for folder in folders:
        if about(folder).arrays_sha256 == sha256:
            return _cached(folder)
    if any(folder.name == name for folder in folders):
        raise InputError(
            f"the result belongs to a face model {name!r} with sha256 {sha256[:12]}..., and the one of this name in "
            "the library is another: add the one it was made with, raytrace-face models add PATH --name NAME"
        )
    raise InputError(
        f"the result belongs to the face model {name!r}, which is not in the library {str(home())!r}: add it, "
        f"raytrace-face models add PATH --name {name}"
    )


def _cached(folder: Path) -> FaceModel:
    stamp = (folder / DESCRIPTION).stat()
    return _load_once(folder.resolve(), stamp.st_mtime_ns, stamp.st_ino)


@lru_cache(maxsize=2)
def _load_once(folder: Path, changed_ns: int, inode: int) -> FaceModel:
    return load(folder)


def _unknown(name: str) -> str:
    names = [EMBEDDED, *(entry.name for entry in list_models())]
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
    return f"face model {name!r} is neither in the library nor a folder: {hint} (raytrace-face models list)"
