"""Files and folders in one piece: they appear complete or not at all, and are known by their checksums."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from raytrace_face.errors import OutputError

MARKS = ("result.json", "benchmark.toml", "export.json", "compare.json", "model.json")
"""A folder that holds one of these was written by this program, and may be replaced."""


def check_output(folder: Path, force: bool = False) -> None:
    """Find out *before* the work whether a result can be written to `folder`.

    Raises:
        OutputError: it exists and `force` is not set, is no result that may be replaced, or cannot be written.
    """
    if os.path.lexists(folder):
        if not force:
            raise OutputError(f"output {str(folder)!r} exists: choose another with --out or replace it with --force")
        ours = folder.is_dir() and any((folder / name).is_file() for name in MARKS)
        replaceable = ours or (folder.is_dir() and not any(folder.iterdir()))
        if not replaceable:
            raise OutputError(
                f"output {str(folder)!r} exists and is not a result folder, so it is not replaced: "
                "choose another with --out"
            )
    parent = folder.absolute().parent
    while not os.path.lexists(parent):
        parent = parent.parent
    try:
        Path(tempfile.mkdtemp(prefix=".raytrace-face-", dir=parent)).rmdir()
    except OSError as error:
        raise OutputError(
            f"output {str(folder)!r} cannot be written ({error.strerror} in {str(parent)!r}): choose another with --out"
        ) from error


@contextmanager
def new_folder(folder: Path, force: bool = False) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends well, and vanishes otherwise."""
    check_output(folder, force)
    target = folder.absolute()
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        os.chmod(temporary, 0o755)
        yield temporary
        _swap(temporary, target, force)
    except OSError as error:
        raise OutputError(f"output {str(folder)!r} cannot be written ({error}): choose another with --out") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def check_file(path: Path, force: bool = False) -> None:
    """Find out *before* the work whether a file can be written.

    Raises:
        OutputError: it exists and `force` is not set, or its folder does not exist.
    """
    if path.exists() and (path.is_dir() or not force):
        raise OutputError(f"output {str(path)!r} exists: choose another with --out or replace it with --force")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"output {str(path)!r} cannot be written: its folder does not exist; make it first")


@contextmanager
def new_file(path: Path, force: bool = False) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and vanishes otherwise."""
    check_file(path, force)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # writers of EXR raise the latter
        raise OutputError(f"output {str(path)!r} cannot be written ({error}): choose another with --out") from error
    finally:
        temporary.unlink(missing_ok=True)


def begin_folder(folder: Path, mark: str, about: dict[str, Any], what: str) -> None:
    """Make a folder that a job fills piece by piece, and say in `<folder>/<mark>` whose it is (`about`).

    Raises:
        OutputError: it holds something already, but no `what`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"output {str(folder)!r} exists and holds no {what}: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{mark}.part"
    write_json(part, about)
    os.replace(part, folder / mark)


def _swap(new: Path, target: Path, force: bool) -> None:
    """Move `new` to `target`; an old result steps aside first and is deleted last."""
    if not os.path.lexists(target):
        os.rename(new, target)
        return
    if not force:
        raise OutputError(f"output {str(target)!r} appeared meanwhile: choose another with --out")
    old = new.with_name(new.name + ".old")
    os.rename(target, old)
    try:
        os.rename(new, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Standard JSON, one line a key; what is not finite becomes null."""
    lines = (f"{json.dumps(key)}: {json.dumps(_finite(value), allow_nan=False)}" for key, value in values.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
