"""What every protocol gives: figures of an item, the columns of its table, and how a failure is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from raytrace_face.benchmark.spec import Benchmark, Item
from raytrace_face.result import Reconstruction

NAN = float("nan")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Scored:
    """What is kept of one item under one method."""

    row: dict[str, Any]
    """Flat figures; NaN where one does not apply. A list counts as several values of one item (pairs of photos)."""
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    """What figures over several items need."""
    picture: NDArray[np.uint8] | None = None
    """(H, W, 3) for people."""


@dataclass(frozen=True)
class Column:
    """A figure of the table."""

    key: str
    title: str
    better: Literal["low", "high"]
    digits: int = 2
    detail: bool = False
    """Not in the main table, but in a second one below it."""


@dataclass(frozen=True)
class Pooled:
    """Figures over several items (a spread over the lights of one subject), with a unit of their own."""

    columns: tuple[Column, ...]
    compute: Callable[[Sequence[tuple[Row, Mapping[str, NDArray[Any]]]]], list[dict[str, Any]]]
    """Rows and arrays of the items of a method -> rows of figures, one a unit."""


class Scorer(Protocol):
    """A protocol as the runner sees it: a module with these names (`yaleb`, `synthetic`, `scans`)."""

    COLUMNS: tuple[Column, ...]
    GROUP: str
    """Column that the breakdown is by."""
    PERSON: str
    """Column that names the person: photos of one person are not independent, so intervals are over people."""
    POOLED: Pooled | None
    REFERENCE: Mapping[str, str]
    """Key of a row that every item carries for a method that needs no photo -> its key among the columns:
    the mean face beside every geometry."""

    def score(self, benchmark: Benchmark, item: Item, result: Reconstruction) -> Scored:
        """Figures of a reconstruction."""

    def score_files(self, benchmark: Benchmark, item: Item, folder: Path) -> Scored:
        """Figures of what another program left in a folder.

        Raises:
            InputError: it left nothing for this item, or something that cannot be read.
        """

    def score_nothing(self, benchmark: Benchmark, item: Item) -> Scored:
        """Figures of doing nothing: the floor, and what a failure counts as."""


def scorer(protocol: str) -> Scorer:
    """The module of a protocol."""
    import importlib

    name = {"now": "scans", "micc": "scans"}.get(protocol, protocol)
    found: Any = importlib.import_module(f"raytrace_face.benchmark.{name}")
    return found
