"""A benchmark run and what it leaves: `table.md`, `table.csv`, `items.csv`, `plot.png`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raytrace_face.benchmark import execute, table
from raytrace_face.benchmark.methods import Method
from raytrace_face.benchmark.protocol import Column, Scorer, scorer
from raytrace_face.benchmark.spec import Benchmark
from raytrace_face.benchmark.table import Run
from raytrace_face.errors import OutputError

PLOTTED = 8
"""Most columns in the plot."""


def run(
    benchmark: Benchmark, methods: Sequence[Method], settings: dict[str, Any], out: Path, processes: int,
    ray_address: str | None, quiet: bool,
) -> tuple[list[Run], str]:  # fmt: skip
    """Run methods through a benchmark and write everything; returns the runs and the Markdown.

    Args:
        settings: nested, of all methods.
        processes, ray_address: as in `execute.run`.

    Raises:
        InputError, MachineError: as `execute.plan` and `execute.run` do; weights that cannot be read.
        OutputError: `out` cannot be written.
    """
    for method in methods:
        if method.weights is not None:
            from raytrace_face.learn.weights import load

            load(method.weights)  # what is damaged is told before the work
    plans = [execute.plan(benchmark, method, settings, out) for method in methods]
    try:
        out.mkdir(parents=True, exist_ok=True)
        done = execute.run([job for plan in plans for job in plan], processes, ray_address, quiet)
        size = len(benchmark.items)
        runs = [Run(m, done[k * size : (k + 1) * size], out / m.name) for k, m in enumerate(methods)]
        return runs, write(benchmark, runs, out)
    except OSError as error:
        raise OutputError(f"output {str(out)!r} cannot be written ({error}): choose another --out") from error


def markdown(benchmark: Benchmark, runs: Sequence[Run]) -> str:
    """All tables of a run as one text, without times: equal settings give equal text."""
    protocol = scorer(benchmark.protocol)
    parts = [f"### {benchmark.title}", table.main_table(protocol, runs)]
    parts.append("Mean over items (95 % bootstrap interval over people). A failed item counts as doing nothing.")
    if table.columns_of(protocol, runs, detail=True):
        parts += ["In detail:", table.main_table(protocol, runs, detail=True)]
    if len(runs) > 1:
        parts.append(table.difference_table(protocol, runs))
        parts.append("Same items. **Bold**: worse than the first, *italic*: better, by more than chance (95 %).")
    if len({str(d.row.get(protocol.GROUP, "")) for d in runs[0].done}) > 1:
        parts += [f"{runs[0].method.text[:1].upper()}{runs[0].method.text[1:]}, by {protocol.GROUP}:",
                  table.group_table(protocol, runs[0])]  # fmt: skip
    for run in runs:
        parts += [f"- {run.method.name}, {d.id}: {d.error}" for d in run.failed]
    return "\n\n".join(parts)


def times(runs: Sequence[Run]) -> str:
    """Seconds a photo by method: mean, least, most."""
    rows = []
    for run in runs:
        seconds = np.array([d.seconds for d in run.done])
        rows.append([run.method.text, *(f"{x:.1f}" for x in (seconds.mean(), seconds.min(), seconds.max()))])
    return table.markdown(["method", "s an item", "least", "most"], rows)


def write(benchmark: Benchmark, runs: Sequence[Run], out: Path) -> str:
    """Write everything; returns the Markdown."""
    protocol = scorer(benchmark.protocol)
    text = markdown(benchmark, runs)
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    (out / "times.md").write_text(times(runs) + "\n", encoding="utf-8")
    table.write_csv(out / "table.csv", table.summary_rows(protocol, runs))
    table.write_csv(out / "items.csv", table.item_rows(runs))
    plot(protocol, runs, out / "plot.png", benchmark.title)
    return text


def plot(protocol: Scorer, runs: Sequence[Run], path: Path, title: str) -> None:
    """Cumulative curves of every figure over the items, one line a method (the shape of published comparisons)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = table.columns_of(protocol, runs, detail=False)[:PLOTTED]
    if not columns:
        path.unlink(missing_ok=True)
        return
    across = min(len(columns), 4)
    down = -(-len(columns) // across)
    figure = Figure(figsize=(3.4 * across, 2.7 * down + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    lines: dict[str, Any] = {}
    for axis, column in zip(axes, columns, strict=False):
        for k, run in enumerate(runs):
            values = _values(run, column)
            if len(values):
                lines[run.method.name] = axis.plot(
                    values, (np.arange(len(values)) + 1) / len(values), drawstyle="steps-post", color=f"C{k % 10}",
                    linestyle="-" if k < 10 else "--",
                )[0]  # fmt: skip
        axis.set(xlabel=f"{column.title} ({column.better} is better)", ylim=(0, 1.02))
        axis.grid(alpha=0.3)
    for axis in axes[len(columns) :]:
        axis.remove()
    axes[0].set_ylabel("share of items")
    if len(runs) > 1:
        figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def _values(run: Run, column: Column) -> np.ndarray:
    rows = [{**d.row, "item": d.id} for d in run.done]
    total, count = table.sums(rows, column.key, "item")
    return np.sort(total[count > 0] / count[count > 0])
