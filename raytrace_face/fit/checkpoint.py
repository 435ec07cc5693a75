"""State on disk, so that a killed run resumes where it was and ends where an uninterrupted run ends.

One npz a named step, written to a temporary file and renamed; a key of photo, configuration and face model
guards against resuming another run.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raytrace_face.config import Config
from raytrace_face.errors import OutputError
from raytrace_face.types import Photo

State = dict[str, NDArray]


class Checkpoint:
    """A folder of named states; without a folder it forgets everything."""

    def __init__(self, folder: Path | None, photo: Photo, config: Config, model: str = "") -> None:
        self.folder = folder
        settings = json.dumps(config.to_dict(), sort_keys=True)
        pixels = hashlib.sha256(np.ascontiguousarray(photo.linear).tobytes()).hexdigest()
        self.key = hashlib.sha256(f"{pixels} {settings} {model}".encode()).hexdigest()
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"checkpoint folder {str(folder)!r} cannot be made ({error.strerror})") from error

    def save(self, name: str, state: State) -> None:
        """Replace the state of this name."""
        if self.folder is None:
            return
        buffer = io.BytesIO()
        np.savez(buffer, **{"__key__": np.array(self.key), **state})  # type: ignore[arg-type]
        temporary = self.folder / f".{name}.{os.getpid()}"
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(self.folder / f"{name}.npz")

    def load(self, name: str) -> State | None:
        """The state of this name, or None: none saved, damaged, or of another photo or configuration."""
        if self.folder is None:
            return None
        try:
            content = io.BytesIO((self.folder / f"{name}.npz").read_bytes())
            with np.load(content, allow_pickle=False) as file:
                if str(file["__key__"]) != self.key:
                    return None
                return {k: file[k] for k in file.files if k != "__key__"}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
