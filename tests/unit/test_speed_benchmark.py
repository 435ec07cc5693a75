"""The arithmetic of the speed benchmark: slopes, equal loss, kernels, layouts. No clock is read."""

from __future__ import annotations

import csv
import io

import pytest

from benchmarks import floor, growth, processes, solver, speed
from benchmarks.common import Section, table


def test_slope_is_the_exponent_of_a_power_law():
    assert growth.slope((64, 128, 256), [3e-5 * n**2 for n in (64, 128, 256)]) == pytest.approx(2)
    assert growth.slope((1, 2, 4, 8), [0.7] * 4) == pytest.approx(0, abs=1e-12)
    # a fixed cost flattens it: log2 of 3 and of 5 / 3 between doublings, the outer points decide
    assert growth.slope((1, 2, 4), [2.0, 6.0, 10.0]) == pytest.approx(1.160964, abs=1e-6)  # log2(10 / 2) / 2


def runs(*pairs: tuple[float, float]) -> list[dict[str, float]]:
    """Runs of (seconds, PSNR)."""
    return [{"stages": s, "psnr_db": db} for s, db in pairs]


def test_time_to_equal_loss_is_interpolated_in_log_time():
    rows = runs((10, 20.0), (40, 24.0), (160, 26.0))
    assert solver.time_to_reach(rows, "psnr_db", 22.0) == pytest.approx(20)  # halfway in dB, and in log time
    assert solver.time_to_reach(rows, "psnr_db", 24.0) == pytest.approx(40)
    assert solver.time_to_reach(rows, "psnr_db", 25.0) == pytest.approx(80)


def test_a_first_run_that_is_good_enough_counts_whole_and_none_counts_as_never():
    rows = runs((10, 20.0), (40, 24.0))
    assert solver.time_to_reach(rows, "psnr_db", 19.0) == 10
    assert solver.time_to_reach(rows, "psnr_db", 24.1) == float("inf")


def test_the_verdict_is_a_ratio_or_a_lower_bound():
    (default,) = runs((5, 22.0))
    rows = runs((10, 20.0), (40, 24.0))
    assert "**4.0 x**" in solver.verdict(default, rows, "psnr_db", "stages", "Both")
    (better,) = runs((5, 30.0))
    text = solver.verdict(better, rows, "psnr_db", "stages", "Both")
    assert "does not reach 30.0 dB in 40 s (best 24.0 dB): **more than 8.0 x**" in text


def test_kernels_are_told_apart_by_their_code():
    embree = {"ir": io.StringIO("call void @fun(ptr %v1_in_ctx_0)"), "execution_time": 5.0, "size": 4000}
    plain = {"ir": io.StringIO("fadd"), "execution_time": 2.0, "size": 8, "codegen_time": 0.5, "backend_time": 1.0}
    optix = {"uses_optix": True, "execution_time": 1.0, "size": 100}
    without_code = {"execution_time": 0.25, "size": 1}  # Dr.Jit's own reductions have none
    kernels = floor.Kernels()
    kernels.add([embree, plain])
    kernels.add([optix, without_code])
    assert (kernels.tracing, kernels.other, kernels.compiling) == (6.0, 2.25, 1.5)
    assert (kernels.launches, kernels.rays) == (4, [4000, 100])


def test_the_history_of_a_real_trace_is_recognised():
    """The mark in the code is Dr.Jit's own, and may change with its version."""
    from raytrace_face.backend import start

    mi = start("auto")
    import drjit as dr

    scene = mi.load_dict({"type": "scene", "ball": {"type": "sphere"}})
    with dr.scoped_set_flag(dr.JitFlag.KernelHistory, True):
        dr.kernel_history_clear()
        x = dr.linspace(mi.Float, -2, 2, 1024)
        dr.eval(scene.ray_test(mi.Ray3f(mi.Point3f(x, 0, 5), mi.Vector3f(0, 0, -1))))
        traced = floor.Kernels()
        traced.add(dr.kernel_history())
        dr.kernel_history_clear()
        dr.eval(dr.sin(dr.arange(mi.Float, 1024)))
        computed = floor.Kernels()
        computed.add(dr.kernel_history())
    assert 1024 in traced.rays
    assert computed.launches > 0
    assert computed.rays == []


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        (1, [(1, 1)]),
        (2, [(1, 1), (1, 2), (2, 1)]),
        (6, [(1, 1), (1, 2), (1, 4), (1, 6), (6, 1)]),
        (8, [(1, 1), (1, 2), (1, 4), (1, 8), (8, 1)]),
    ],
)
def test_layouts_use_up_to_all_cores(cores, expected):
    assert processes.layouts(cores) == expected


def test_a_section_is_written_as_a_table_and_as_data(tmp_path):
    rows = [{"a": 1, "b": 2.5}, {"a": 2, "c": "x"}]
    section = Section("name", "Title", table(["a", "b"], [[1, 2.555], [2, float("nan")]], 1), rows)
    assert section.markdown() == "### Title\n\n| a | b |\n|---|---|\n| 1 | 2.6 |\n| 2 | - |"
    section.write(tmp_path)
    with (tmp_path / "name.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": "2.5", "c": ""}, {"a": "2", "b": "", "c": "x"}]


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--set", "light.max_light=2"], "did you mean 'light.max_lights'"),
        (["--set", "light.max_lights"], "key=value"),
        (["--set", "stage1.rounds=0"], "must lie in"),
        (["--steps", "30", "20"], "grow"),
        (["--steps", "0"], "at least 1"),
    ],
)
def test_bad_options_end_with_the_reason(argv, complaint, capsys):
    with pytest.raises(SystemExit) as end:
        speed.parsed(argv)
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err


def test_fast_leaves_out_montecarlo():
    assert "solvers" in speed.parts(speed.parsed([]))
    assert set(speed.parts(speed.parsed(["--fast"]))) == {"phases", "growth", "cores", "memory"}
