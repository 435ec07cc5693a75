"""What the parts of the speed benchmark share: the photo, the clock, sections of the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raytrace_face.benchmark.table import markdown, write_csv
from raytrace_face.types import Photo


@dataclass(frozen=True)
class Section:
    """One part of the report."""

    name: str
    """File name of its data, without suffix."""
    title: str
    text: str
    """Markdown."""
    rows: Sequence[dict[str, Any]]
    """The same as data."""

    def write(self, out: Path) -> None:
        """Write `<out>/<name>.csv`."""
        write_csv(out / f"{self.name}.csv", self.rows)

    def markdown(self) -> str:
        """Heading and text."""
        return f"### {self.title}\n\n{self.text}"


def demo_photo() -> Photo:
    """The astronaut portrait that scikit-image carries (NASA, public domain)."""
    from skimage import data

    from raytrace_face.capture import photo_from_array

    return photo_from_array(data.astronaut(), name="astronaut")


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], digits: int = 2) -> str:
    """A Markdown table; floats with `digits` decimals, NaN as a dash."""

    def cell(value: Any) -> str:
        if isinstance(value, float | np.floating):
            return "-" if np.isnan(value) else f"{value:.{digits}f}"
        return str(value)

    return markdown(header, [[cell(v) for v in row] for row in rows])


def seconds(call: Callable[[], Any]) -> float:
    """Wall-clock time of a call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
