"""Mitsuba for every test that traces, started by the project's own door; and no face models but the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def mi() -> ModuleType:
    """Mitsuba with an active variant and the skin BSDF registered."""
    from raytrace_face.backend import start

    return start()


@pytest.fixture(scope="session", autouse=True)
def empty_library(tmp_path_factory) -> Iterator[Path]:
    """A home without models, so that no test sees those of the person who runs it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTRACE_FACE_HOME", str(home))
        yield home
