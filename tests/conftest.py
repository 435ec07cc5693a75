"""Mitsuba for every test that traces, started by the project's own door."""

from __future__ import annotations

from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def mi() -> ModuleType:
    """Mitsuba with an active variant and the skin BSDF registered."""
    from raytrace_face.backend import start

    return start()
