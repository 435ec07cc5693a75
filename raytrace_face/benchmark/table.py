"""Tables of methods over items: means with bootstrap intervals over people, differences between methods."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrace_face.benchmark.execute import Done
from raytrace_face.benchmark.methods import Method
from raytrace_face.benchmark.protocol import Column, Scorer
from raytrace_face.measure.statistics import bootstrap_interval

F = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """All items of a benchmark under one method."""

    method: Method
    done: Sequence[Done]
    out: Path
    """The method's folder."""

    @property
    def failed(self) -> list[Done]:
        return [d for d in self.done if d.error]


@dataclass(frozen=True)
class Figure:
    """A mean over items."""

    mean: float
    low: float
    high: float
    """Ends of the 95 % interval; NaN where there are fewer than two people."""
    count: int
    """Values in the mean."""

    def text(self, digits: int, interval: bool = True) -> str:
        """ "5.0 (4.6 to 5.4)", or a dash."""
        if np.isnan(self.mean):
            return "-"
        if not interval or np.isnan(self.low):
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def sums(rows: Sequence[Mapping[str, Any]], key: str, person: str) -> tuple[F, F]:
    """Sum and number (N,) of the values of each person: a list counts as several, NaN and missing ones as none."""
    total: dict[str, float] = {}
    count: dict[str, float] = {}
    for row in rows:
        name = str(row.get(person, ""))
        values = np.atleast_1d(np.asarray(row.get(key, np.nan), np.float64))
        values = values[~np.isnan(values)]
        total[name] = total.get(name, 0.0) + float(values.sum())
        count[name] = count.get(name, 0.0) + len(values)
    return np.array(list(total.values())), np.array(list(count.values()))


def figure(total: F, count: F) -> Figure:
    """Mean of all values, with a bootstrap interval over people, whose values stay together.

    Args:
        total, count: (N,) sum and number of the values of each person.
    """
    used = count > 0
    total, count = total[used], count[used]
    if not len(total):
        return Figure(float("nan"), float("nan"), float("nan"), 0)

    def mean(people: F, axis: int = -1) -> F:
        return _ratio(total, count, people, axis)

    return _over_people(mean, len(total), int(count.sum()))


Sums = tuple[F, F]


def difference(first: Sums, second: Sums) -> Figure:
    """Mean of `second` minus mean of `first` over the same people (paired), with the interval of that difference."""
    used = (first[1] > 0) & (second[1] > 0)
    a, n, b, m = (x[used] for x in (*first, *second))
    if not used.any():
        return Figure(float("nan"), float("nan"), float("nan"), 0)

    def gap(people: F, axis: int = -1) -> F:
        return _ratio(b, m, people, axis) - _ratio(a, n, people, axis)

    return _over_people(gap, int(used.sum()), int(used.sum()))


def _ratio(total: F, count: F, people: F, axis: int) -> F:
    """Mean of all values of drawn people (numbers, along `axis`)."""
    who = people.astype(np.int64)
    return np.asarray(total[who].sum(axis) / np.maximum(count[who].sum(axis), 1e-12))


def _over_people(statistic: Callable[..., F], people: int, count: int) -> Figure:
    found = bootstrap_interval(np.arange(float(people)), statistic)
    return Figure(found.value, found.low, found.high, count)


def _pairs(first: Run, second: Run, column: Column) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Rows of the items that both runs have a value for."""
    rows = [(a.row, b.row) for a, b in zip(first.done, second.done, strict=True)]
    both = [(a, b) for a, b in rows if all(sums([x], column.key, "")[1].any() for x in (a, b))]
    return [a for a, _ in both], [b for _, b in both]


def columns_of(protocol: Scorer, runs: Sequence[Run], detail: bool | None = None) -> list[Column]:
    """The protocol's columns that have any value; only those of the main or of the detail table, if said so."""
    rows = [d.row for run in runs for d in run.done]
    wanted = [c for c in protocol.COLUMNS if detail is None or c.detail == detail]
    return [c for c in wanted if sums(rows, c.key, protocol.PERSON)[1].any()]


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def _cells(
    protocol: Scorer, rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], interval: bool = True
) -> list[str]:
    return [figure(*sums(rows, c.key, protocol.PERSON)).text(c.digits, interval) for c in columns]


def main_table(protocol: Scorer, runs: Sequence[Run], detail: bool = False) -> str:
    """One row a method: means and intervals. A method that needs no photo (mean face) has its row, too."""
    columns = columns_of(protocol, runs, detail)
    pooled = () if protocol.POOLED is None or detail else protocol.POOLED.columns
    rows = []
    for run in runs:
        cells = _cells(protocol, [d.row for d in run.done], columns)
        cells += _cells(protocol, pooled_rows(protocol, run), pooled)
        rows.append([run.method.text, len(run.done), len(run.failed), *cells])
    for name, own in reference_rows(protocol, runs[0]).items():
        rows.append([name, len(own), 0, *_cells(protocol, own, columns), *["-"] * len(pooled)])
    return markdown(["method", "items", "failed", *(c.title for c in (*columns, *pooled))], rows)


def reference_rows(protocol: Scorer, run: Run) -> dict[str, list[dict[str, Any]]]:
    """Name of a method that needs no photo -> its figures, which the items of any run carry beside their own."""
    found: dict[str, dict[str, str]] = {}
    for key, column in protocol.REFERENCE.items():
        found.setdefault(key.split(".")[0], {})[key] = column
    return {
        name: [
            {protocol.PERSON: d.row[protocol.PERSON], **{c: d.row.get(k, np.nan) for k, c in keys.items()}}
            for d in run.done
        ]
        for name, keys in found.items()
    }


def pooled_rows(protocol: Scorer, run: Run) -> list[dict[str, Any]]:
    """Figures over several items of a run."""
    if protocol.POOLED is None:
        return []
    return protocol.POOLED.compute([(d.row, d.arrays(run.out)) for d in run.done])


def difference_table(protocol: Scorer, runs: Sequence[Run]) -> str:
    """One row a method: mean difference to the first, over the items both have a value for; bold where 0 lies outside
    of the interval and the method is worse, plain where it may be chance, italics where it is better."""
    columns, first = columns_of(protocol, runs, detail=False), runs[0]
    rows = []
    for run in runs[1:]:
        cells = []
        for c in columns:
            ours, theirs = _pairs(first, run, c)
            d = difference(sums(ours, c.key, protocol.PERSON), sums(theirs, c.key, protocol.PERSON))
            text = d.text(c.digits) if np.isnan(d.mean) else f"{d.mean:+.{c.digits}f}"
            if d.low > 0 or d.high < 0:
                worse = (d.mean > 0) == (c.better == "low")
                text = f"**{text}**" if worse else f"*{text}*"
            cells.append(text)
        rows.append([run.method.text, *cells])
    return markdown([f"difference to: {first.method.text}", *(c.title for c in columns)], rows)


def group_table(protocol: Scorer, run: Run) -> str:
    """The first method's means by the protocol's group."""
    columns = columns_of(protocol, [run], detail=False)
    groups = list(dict.fromkeys(str(d.row.get(protocol.GROUP, "")) for d in run.done))
    rows = []
    for name in sorted(groups):
        part = [d.row for d in run.done if str(d.row.get(protocol.GROUP, "")) == name]
        rows.append([name, len(part), *_cells(protocol, part, columns, interval=False)])
    return markdown([protocol.GROUP, "items", *(c.title for c in columns)], rows)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Dictionaries as rows; the columns are the union of the keys in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def summary_rows(protocol: Scorer, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Method, column, mean, interval and count: the table as data, without times."""
    found: list[dict[str, Any]] = []

    def add(name: str, parts: Sequence[tuple[Column, Sequence[Mapping[str, Any]]]]) -> None:
        for c, rows in parts:
            f = figure(*sums(rows, c.key, protocol.PERSON))
            cells = {k: round(getattr(f, k), c.digits + 2) for k in ("mean", "low", "high")}
            found.append({"method": name, "figure": c.key, "better": c.better, **cells, "count": f.count})

    for run in runs:
        rows = [d.row for d in run.done]
        parts = [(c, rows) for c in columns_of(protocol, [run])]
        if protocol.POOLED is not None:
            parts += [(c, pooled_rows(protocol, run)) for c in protocol.POOLED.columns]
        add(run.method.name, parts)
        found.append({"method": run.method.name, "figure": "failed", "better": "low", "mean": len(run.failed)})
    for name, rows in reference_rows(protocol, runs[0]).items():
        add(name, [(c, rows) for c in columns_of(protocol, runs) if sums(rows, c.key, protocol.PERSON)[1].any()])
    return found


def item_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Every figure of every item, with its time and error."""
    found = []
    for run in runs:
        for d in run.done:
            lists = {k: " ".join(f"{x:.6g}" for x in v) if isinstance(v, list) else v for k, v in d.row.items()}
            found.append(
                {"method": run.method.name, "item": d.id, **lists, "seconds": round(d.seconds, 2), "error": d.error}
            )
    return found
