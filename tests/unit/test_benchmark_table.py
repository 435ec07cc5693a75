"""Tables: means and intervals are those of hand computation and SciPy, people stay together, nothing is dropped."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from raytrace_face.benchmark import report, scans, table
from raytrace_face.benchmark.execute import Done
from raytrace_face.benchmark.methods import Method
from raytrace_face.benchmark.protocol import Column, Pooled
from raytrace_face.benchmark.spec import Benchmark
from raytrace_face.benchmark.table import Run

NAN = float("nan")


@dataclass
class Protocol:
    """What a table needs of a protocol."""

    COLUMNS: tuple[Column, ...] = (
        Column("error_mm", "error, mm", "low"),
        Column("ssim", "SSIM", "high", 3),
        Column("inner", "inner", "low", 1, detail=True),
    )
    GROUP: str = "light"
    PERSON: str = "who"
    POOLED: Pooled | None = None
    REFERENCE: dict[str, str] = field(default_factory=dict)


def rows_of(people: dict[str, Sequence[Any]], key: str = "error_mm") -> list[dict[str, Any]]:
    return [{"who": who, key: value} for who, values in people.items() for value in values]


def run_of(name: str, rows: Sequence[dict[str, Any]], errors: dict[int, str] | None = None) -> Run:
    done = [Done(f"item{k}", row, 1.5 + k, (errors or {}).get(k, "")) for k, row in enumerate(rows)]
    return Run(Method(name, f"the {name}", {}), done, Path("nowhere"))


def test_the_mean_is_over_values_and_the_interval_over_people():
    rows = rows_of({"a": [1.0, 2.0, 3.0], "b": [10.0], "c": [4.0, 6.0]})
    found = table.figure(*table.sums(rows, "error_mm", "who"))
    assert found.mean == pytest.approx(26 / 6)
    assert found.count == 6
    # all 27 draws of three people: the ends are those of this distribution, which 2000 draws show to a few hundredths
    sums, counts = np.array([6.0, 10, 10]), np.array([3.0, 1, 2])
    draws = np.array(np.meshgrid(*[range(3)] * 3)).reshape(3, -1)
    every = sums[draws].sum(axis=0) / counts[draws].sum(axis=0)
    assert found.low >= every.min()
    assert found.high <= every.max()
    assert np.mean(every < found.low - 1e-9) <= 0.05
    assert np.mean(every > found.high + 1e-9) <= 0.05
    assert found.low < found.mean < found.high


def test_one_value_a_person_is_scipys_own_bootstrap():
    values = np.random.default_rng(3).gamma(2, 2, 40)
    found = table.figure(values, np.ones(40))
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    width = expected.high - expected.low
    assert found.mean == pytest.approx(values.mean())
    # the quantiles of 9999 draws scatter by about 1 % of the width each
    assert found.low == pytest.approx(expected.low, abs=0.06 * width)
    assert found.high == pytest.approx(expected.high, abs=0.06 * width)
    assert found == table.figure(values, np.ones(40)), "seeded"


def test_people_stay_together():
    """Twenty photos of each of five people are five pieces of evidence, not a hundred."""
    rng = np.random.default_rng(0)
    level = rng.normal(0, 1, 5)
    many = {f"p{k}": list(level[k] + rng.normal(0, 0.01, 20)) for k in range(5)}
    alone = {f"p{k}_{i}": [x] for k in range(5) for i, x in enumerate(many[f"p{k}"])}
    together = table.figure(*table.sums(rows_of(many), "error_mm", "who"))
    apart = table.figure(*table.sums(rows_of(alone), "error_mm", "who"))
    assert together.mean == pytest.approx(apart.mean)
    # the standard error of five people is sqrt(20) times that of a hundred
    ratio = (together.high - together.low) / (apart.high - apart.low)
    assert ratio == pytest.approx(np.sqrt(20), rel=0.15)


def test_lists_count_as_several_values_and_nan_as_none():
    rows = [
        {"who": "a", "ssim": [0.2, 0.4, NAN]}, {"who": "a", "ssim": 0.9}, {"who": "b", "ssim": NAN}, {"who": "b"},
        {"who": "c", "ssim": [None, 0.5]}, {"who": "d", "ssim": []},
    ]  # fmt: skip
    total, count = table.sums(rows, "ssim", "who")
    assert total == pytest.approx([1.5, 0, 0.5, 0])
    assert count.tolist() == [3, 0, 1, 0]
    found = table.figure(total, count)
    assert (found.mean, found.count) == (pytest.approx(2.0 / 4), 4)


def test_one_person_has_no_interval_and_nothing_has_no_mean():
    one = table.figure(np.array([6.0]), np.array([3.0]))
    assert one.text(1) == "2.0"
    assert np.isnan([one.low, one.high]).all()
    nothing = table.figure(np.array([0.0]), np.array([0.0]))
    assert nothing.text(1) == "-"
    assert nothing.count == 0
    same = table.figure(np.array([2.0, 4.0]), np.array([1.0, 2.0]))
    assert same.text(1) == "2.0 (2.0 to 2.0)"


def test_a_paired_difference_shows_what_two_intervals_hide():
    """People differ by 2 mm, methods by 0.1 mm on every item: seen only where each item is its own control."""
    rng = np.random.default_rng(1)
    base = {f"p{k}": list(rng.normal(5, 2) + rng.normal(0, 0.3, 4)) for k in range(12)}
    shifted = {who: [x + 0.1 + rng.normal(0, 0.02) for x in values] for who, values in base.items()}
    first, second = (table.sums(rows_of(x), "error_mm", "who") for x in (base, shifted))
    a, b = table.figure(*first), table.figure(*second)
    assert a.low < b.mean < a.high
    difference = table.difference(first, second)
    assert difference.mean == pytest.approx(b.mean - a.mean)
    assert 0.08 < difference.low < 0.1 < difference.high < 0.12
    text = table.difference_table(Protocol(), [run_of("ours", rows_of(base)), run_of("other", rows_of(shifted))])
    assert text.splitlines()[-1] == "| the other | **+0.10** |"
    text = table.difference_table(Protocol(), [run_of("other", rows_of(shifted)), run_of("ours", rows_of(base))])
    assert text.splitlines()[-1] == "| the ours | *-0.10* |"


def test_better_is_italic_and_worse_is_bold_where_high_is_good():
    base = {f"p{k}": [0.5 + 0.03 * k] for k in range(6)}
    better = {who: [x + 0.02] for who, (x,) in base.items()}
    runs = [run_of(name, rows_of(values, "ssim")) for name, values in (("ours", base), ("up", better))]
    assert table.difference_table(Protocol(), runs).splitlines()[-1] == "| the up | *+0.020* |"
    assert table.difference_table(Protocol(), runs[::-1]).splitlines()[-1] == "| the ours | **-0.020** |"


def test_chance_is_plain_and_the_same_method_differs_by_nothing():
    rng = np.random.default_rng(2)
    base = {f"p{k}": [rng.normal(5, 2)] for k in range(10)}
    noisy = {who: [x + rng.normal(0, 1)] for who, (x,) in base.items()}
    runs = [run_of("ours", rows_of(base)), run_of("twin", rows_of(base)), run_of("noisy", rows_of(noisy))]
    twin, other = table.difference_table(Protocol(), runs).splitlines()[2:]
    assert twin == "| the twin | +0.00 |"
    assert "*" not in other
    found = table.difference(*(table.sums(rows_of(base), "error_mm", "who") for _ in range(2)))
    assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_differences_are_over_the_items_that_both_have():
    """The hard item that the second method leaves out must not make it look better."""
    first = [{"who": "a", "error_mm": 1.0}, {"who": "a", "error_mm": 9.0}, {"who": "b", "error_mm": 2.0}]
    second = [{"who": "a", "error_mm": 1.5}, {"who": "a", "error_mm": NAN}, {"who": "b", "error_mm": 2.5}]
    text = table.difference_table(Protocol(), [run_of("ours", first), run_of("lazy", second)])
    assert text.splitlines()[-1] == "| the lazy | **+0.50** |"


def test_the_table_is_this_text():
    rows = [
        {"who": "a", "light": "hard", "error_mm": 2.0, "ssim": [0.5, 0.7], "inner": 1.0},
        {"who": "a", "light": "soft", "error_mm": 4.0, "ssim": NAN, "inner": 2.0},
    ]
    ours = run_of("ours", rows, {1: "InputError: no face"})
    assert table.main_table(Protocol(), [ours]).splitlines() == [
        "| method | items | failed | error, mm | SSIM |",
        "|---|---|---|---|---|",
        "| the ours | 2 | 1 | 3.00 | 0.600 |",
    ]
    assert table.main_table(Protocol(), [ours], detail=True).splitlines()[-1] == "| the ours | 2 | 1 | 1.5 |"
    assert table.group_table(Protocol(), ours).splitlines() == [
        "| light | items | error, mm | SSIM |",
        "|---|---|---|---|",
        "| hard | 1 | 2.00 | 0.600 |",
        "| soft | 1 | 4.00 | - |",
    ]
    assert table.item_rows([ours]) == [
        {"method": "ours", "item": "item0", "who": "a", "light": "hard", "error_mm": 2.0, "ssim": "0.5 0.7",
         "inner": 1.0, "seconds": 1.5, "error": ""},
        {"method": "ours", "item": "item1", "who": "a", "light": "soft", "error_mm": 4.0, "ssim": pytest.approx(NAN,
         nan_ok=True), "inner": 2.0, "seconds": 2.5, "error": "InputError: no face"},
    ]  # fmt: skip


def scan_rows(offset: float) -> list[dict[str, Any]]:
    """Rows as `scans` writes them, with the mean face's figures beside the method's."""
    return [
        {"challenge": "", "scan": f"s{k}", "aligned_median_mm": 1.0 + k + offset, "posed_median_mm": NAN,
         "mean face.aligned_median_mm": 2.0 + k, "mean face.posed_median_mm": 2.5}
        for k in range(3)
    ]  # fmt: skip


def test_the_mean_face_has_its_row_in_text_and_data():
    runs = [run_of("ours", scan_rows(0)), run_of("other", scan_rows(1))]
    lines = table.main_table(scans, runs).splitlines()
    assert lines[0] == "| method | items | failed | aligned median, mm |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| the ours", "| the other", "| mean face"]
    assert lines[-1].startswith("| mean face | 3 | 0 | 3.00 (2.00 to 4.00)")
    data = {(r["method"], r["figure"]): r for r in table.summary_rows(scans, runs)}
    assert data["mean face", "aligned_median_mm"]["mean"] == pytest.approx(3.0)
    assert data["mean face", "aligned_median_mm"]["count"] == 3
    assert data["other", "aligned_median_mm"]["mean"] == pytest.approx(3.0)


def test_figures_over_several_items_join_the_main_table_only():
    def spread(items):
        return [{"who": "a", "spread": sum(row["error_mm"] for row, _ in items)}]

    protocol = Protocol(POOLED=Pooled((Column("spread", "spread", "low"),), spread))
    ours = run_of("ours", [{"who": "a", "error_mm": 1.0, "inner": 2.0}, {"who": "a", "error_mm": 2.0, "inner": 2.0}])
    assert table.main_table(protocol, [ours]).splitlines()[-1] == "| the ours | 2 | 0 | 1.50 | 3.00 |"
    assert "spread" not in table.main_table(protocol, [ours], detail=True)
    assert {"figure": "spread", "mean": 3.0}.items() <= table.summary_rows(protocol, [ours])[-2].items()


BENCHMARK = Benchmark(Path("nowhere"), "now", "Scans of nobody", {}, ())


def write(folder: Path, runs: Sequence[Run]) -> str:
    folder.mkdir()
    return report.write(BENCHMARK, runs, folder)


def test_a_report_has_all_files_and_equal_runs_give_equal_bytes(tmp_path):
    runs = [run_of("ours", scan_rows(0), {2: "NoFaceError: no face"}), run_of("other", scan_rows(1))]
    text = write(tmp_path / "a", runs)
    assert write(tmp_path / "b", runs) == text
    names = {"table.md", "times.md", "table.csv", "items.csv", "plot.png"}
    assert {p.name for p in (tmp_path / "a").iterdir()} == names
    assert [n for n in names if (tmp_path / "a" / n).read_bytes() != (tmp_path / "b" / n).read_bytes()] == []
    # the failed item is in the mean (2.00 = (1 + 2 + 3) / 3), in the count and named
    assert "| the ours | 3 | 1 | 2.00 (" in text
    assert "- ours, item2: NoFaceError: no face" in text
    assert (tmp_path / "a" / "table.md").read_text().strip() == text
    assert "1.5" not in text, "times are elsewhere: they differ from run to run"
    assert "| the ours | 2.5 | 1.5 | 3.5 |" in (tmp_path / "a" / "times.md").read_text()
    with (tmp_path / "a" / "table.csv").open() as file:
        data = {(r["method"], r["figure"]): r for r in csv.DictReader(file)}
    assert data["ours", "failed"]["mean"] == "1"
    assert float(data["ours", "aligned_median_mm"]["mean"]) == 2.0
    with (tmp_path / "a" / "items.csv").open() as file:
        items = list(csv.DictReader(file))
    assert [(r["method"], r["item"], r["error"]) for r in items][2] == ("ours", "item2", "NoFaceError: no face")
    assert len(items) == 6


def test_the_plot_gives_each_method_its_colour_in_every_column(tmp_path):
    """Also where a method has no value in the first column: it is in the legend, and the next keeps its own colour."""
    rows = [{**row, "unscaled_median_mm": 1.0 + k} for k, row in enumerate(scan_rows(0))]
    silent = [{k: v for k, v in row.items() if k != "aligned_median_mm"} for row in rows]
    names = []
    for runs in ([run_of("a", silent), run_of("b", rows)], [run_of("a", rows), run_of("b", rows)]):
        write(tmp_path / str(len(names)), runs)
        names.append(np.asarray(Image.open(tmp_path / str(len(names)) / "plot.png").convert("RGB")).reshape(-1, 3))
    blue, orange = (31, 119, 180), (255, 127, 14)
    for colour in (blue, orange):  # both lines (and legend entries) are there in both pictures
        assert all((pixels == colour).all(axis=1).sum() > 20 for pixels in names)


def test_a_run_without_any_figure_is_a_table_without_a_plot(tmp_path):
    text = write(tmp_path / "a", [run_of("ours", [{"scan": "s"}], {0: "InputError: nothing"})])
    assert "| the ours | 1 | 1 |" in text
    assert not (tmp_path / "a" / "plot.png").exists()
