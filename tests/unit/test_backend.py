"""Rationale: the door to Mitsuba never aborts the process and never takes a choice away from the user.

Which libLLVM is loaded and which variant is active is decided once in the life of a process: so each case has its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raytrace_face import backend
from raytrace_face.errors import MachineError

ROOT = Path(__file__).parents[2]
REPORT = """
try:
    mi = backend.start({arguments})
    import drjit as dr
    print("variant", mi.variant(), dr.sum(mi.Float([1, 2, 3])).numpy()[0])
except MachineError as error:
    print("MachineError", error)
"""


def run(code: str, **environment: str) -> str:
    """Output of a fresh Python that has imported `backend` and `MachineError`; it must end by itself, with code 0."""
    head = "from raytrace_face import backend\nfrom raytrace_face.errors import MachineError\n"
    env = {k: v for k, v in os.environ.items() if k != "DRJIT_LIBLLVM_PATH"}
    env |= {"PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, "-c", head + code], capture_output=True, text=True, env=env, timeout=120, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def start(arguments: str = "", before: str = "", **environment: str) -> str:
    return run(before + REPORT.format(arguments=arguments), **environment)


def packaged() -> str:
    path = backend._packaged_libllvm()
    if path is None:
        pytest.skip("karellen-llvm-core is not installed")
    return path


def old_libraries() -> list[str]:
    folder = Path("/usr/lib/x86_64-linux-gnu")
    return [str(p) for v in (14, 15, 16) for p in folder.glob(f"libLLVM-{v}.so.1")]


def test_import_loads_neither_mitsuba_nor_torch():
    modules = "('mitsuba', 'drjit', 'torch')"
    assert (
        run(f"import raytrace_face, lightstage, sys\nprint([m for m in {modules} if m in sys.modules])").strip() == "[]"
    )


def test_starting_leaves_torch_alone():
    # not imported at all: so neither its threads, its seed nor its gradient mode can have changed
    assert run("backend.start()\nimport sys\nprint('torch' in sys.modules)").strip() == "False"


def test_packaged_library_is_found_without_help():
    path = packaged()
    out = run("print(backend.find_libllvm())" + REPORT.format(arguments=""))
    assert path in out
    assert "karellen-llvm-core" in out
    assert "variant llvm_ad_rgb 6.0" in out


def test_library_of_the_user_wins(tmp_path):
    own = tmp_path / "libLLVM-mine.so"
    own.symlink_to(packaged())
    out = run("print(backend.find_libllvm().path)\nimport os\n" + REPORT.format(arguments="") +
              "print(os.environ['DRJIT_LIBLLVM_PATH'])", DRJIT_LIBLLVM_PATH=str(own))  # fmt: skip
    assert out.count(str(own)) == 2
    assert packaged() not in out.replace(str(own), "")


def test_wrong_path_is_one_clear_error(tmp_path):
    out = start(DRJIT_LIBLLVM_PATH=str(tmp_path / "nothing.so"))
    assert out.startswith("MachineError DRJIT_LIBLLVM_PATH is")
    assert "nothing.so" in out
    assert "unset it" in out
    assert len(out.strip().splitlines()) == 1


def test_a_file_that_is_no_library_is_one_clear_error(tmp_path):
    (tmp_path / "libLLVM.so").write_text("not a library")
    out = start(DRJIT_LIBLLVM_PATH=str(tmp_path / "libLLVM.so"))
    assert out.startswith("MachineError")
    assert len(out.strip().splitlines()) == 1


@pytest.mark.parametrize("version", ["14", "15", "16"])
def test_old_library_is_refused_and_the_process_lives(version):
    """Dr.Jit aborts at the first kernel with LLVM 15 and 16; nothing must get that far."""
    path = next((p for p in old_libraries() if f"-{version}." in p), None)
    if path is None:
        pytest.skip(f"no libLLVM-{version} on this machine")
    out = start(DRJIT_LIBLLVM_PATH=path)
    assert out.startswith("MachineError")
    assert len(out.strip().splitlines()) == 1
    assert "karellen-llvm-core" in out  # what to do


def test_variant_of_the_user_is_respected():
    before = "import os\nos.environ['DRJIT_LIBLLVM_PATH'] = backend.find_libllvm().path\n"
    before += "import mitsuba\nmitsuba.set_variant('llvm_ad_rgb')\n"
    assert "variant llvm_ad_rgb" in start(before=before)
    assert "variant llvm_ad_rgb" in start("'llvm'", before=before)
    assert "MachineError Mitsuba variant llvm_ad_rgb is active" in start("'cuda'", before=before)


def test_variant_that_cannot_differentiate_is_refused_not_replaced():
    out = run(
        "import mitsuba\nmitsuba.set_variant('scalar_rgb')\n" + REPORT.format(arguments="") + "print(mitsuba.variant())"
    )
    assert "MachineError Mitsuba variant scalar_rgb is active" in out
    assert out.strip().splitlines()[-1] == "scalar_rgb"


def test_unknown_device_is_one_clear_error():
    from raytrace_face.errors import MachineError

    with pytest.raises(MachineError, match="auto, llvm, cuda"):
        backend.start("gpu")


def test_missing_gpu_is_one_clear_error():
    if any(Path(p).exists() for p in ("/dev/nvidia0", "/dev/nvidiactl")):
        pytest.skip("this machine has a GPU")
    out = start("'cuda'")
    assert out.startswith("MachineError device is 'cuda'")
    assert "--device llvm" in out
    assert len(out.strip().splitlines()) == 1


def test_starting_twice_changes_nothing(mi):
    assert backend.start() is mi
    assert mi.load_dict({"type": "skin"}).to_string() == "Skin[]"


def test_deterministic_means_one_thread():
    out = run("backend.start(deterministic=True)\nimport drjit as dr\nprint(dr.thread_count())\n"
              "backend.start()\nprint(dr.thread_count())")  # fmt: skip
    assert out.split() == ["1", str(max(os.cpu_count() or 1, 1))]


def test_processes_can_share_the_cores_of_a_machine():
    code = "backend.start(deterministic={})\nimport drjit as dr\nprint(dr.thread_count())"
    assert run(code.format(False), RAYTRACE_FACE_THREADS="3").split() == ["3"]
    assert run(code.format(True), RAYTRACE_FACE_THREADS="3").split() == ["1"]


@pytest.mark.parametrize("value", ["0", "-1", "two", "", "1.5"])
def test_a_wrong_number_of_threads_is_one_clear_error(value, monkeypatch):
    monkeypatch.setenv(backend.THREADS_VARIABLE, value)
    with pytest.raises(MachineError, match=r"RAYTRACE_FACE_THREADS is .*1 or more"):
        backend._threads()
