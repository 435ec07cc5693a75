"""The one door to Mitsuba and Dr.Jit.

Finds a libLLVM that works *before* Dr.Jit is imported, sets a variant only if the user has not set one, and turns
everything that would abort the process into a `MachineError`. Dr.Jit 1.5 renders with LLVM 17 or newer; with 15
and 16 the process aborts at the first kernel and 14 is refused, so the version is checked after loading.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from raytrace_face.errors import MachineError

MIN_LLVM = 17
THREADS_VARIABLE = "RAYTRACE_FACE_THREADS"
LIBRARY_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that say the same to NumPy's and torch's libraries, when they are loaded."""
VARIANTS = {"llvm": "llvm_ad_rgb", "cuda": "cuda_ad_rgb"}
INSTALL_HINT = (
    "install one with 'pip install karellen-llvm-core' (Linux x86-64), 'brew install llvm' (macOS) or your "
    "distribution's llvm-19, or point DRJIT_LIBLLVM_PATH at a libLLVM of version 17 or newer"
)


@dataclass(frozen=True)
class LibLLVM:
    """Where the LLVM library comes from."""

    path: str
    """Path given to Dr.Jit; "" when Dr.Jit searches the system itself."""
    reason: str
    """Why this one, for `raytrace-face doctor`."""


def find_libllvm() -> LibLLVM:
    """Choose a libLLVM: the user's own, else the one in a Python package, else whatever the system has.

    Raises:
        MachineError: `DRJIT_LIBLLVM_PATH` points at nothing.
    """
    own = os.environ.get("DRJIT_LIBLLVM_PATH")
    if own:
        if not Path(own).is_file():
            raise MachineError(f"DRJIT_LIBLLVM_PATH is {own!r}, which is not a file: unset it, or {INSTALL_HINT}")
        return LibLLVM(own, "DRJIT_LIBLLVM_PATH is set")
    packaged = _packaged_libllvm()
    if packaged:
        return LibLLVM(packaged, "carried by the Python package karellen-llvm-core")
    return LibLLVM("", "left to Dr.Jit's own search of the system")


def _packaged_libllvm() -> str | None:
    try:
        files = importlib.metadata.files("karellen-llvm-core") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = {f.name: str(Path(str(f.locate())).resolve()) for f in files if ".so" in f.name}
    library = next((p for n, p in sorted(found.items()) if n.startswith("libLLVM.so.")), None)
    if library is None:
        return None
    # The wheel's libLLVM needs the C++ runtime that lies beside it; loading by full path first makes the dynamic
    # linker find them by name afterwards. RTLD_LOCAL: as global symbols they would replace the exception runtime of
    # every library loaded later, and the first C++ exception there would abort the process.
    for name in ("libunwind.so.1.0", "libc++abi.so.1.0", "libc++.so.1.0"):
        if name in found:
            ctypes.CDLL(found[name], mode=ctypes.RTLD_LOCAL)
    return library


def start(device: str = "auto", deterministic: bool = False) -> ModuleType:
    """Import Mitsuba with a working variant and return the module.

    Args:
        device: "auto" (llvm unless the user already chose a variant), "llvm" or "cuda".
        deterministic: use one Dr.Jit thread, so that the same seed gives the same bytes.

    Raises:
        MachineError: no usable libLLVM or CUDA driver, or another variant is active already.
    """
    if device not in ("auto", *VARIANTS):
        raise MachineError(f"device is {device!r}: use one of auto, llvm, cuda")
    early = "drjit" in sys.modules
    mi = _import_mitsuba(device)
    try:
        _set_variant(mi, device)
        _check_llvm(mi)
    except MachineError as error:
        taken = (mi.variant() or "llvm").startswith("llvm")  # so the complaint is about LLVM
        packaged = _packaged_libllvm() if early and taken and device != "cuda" else None
        if packaged is None or os.environ.get("DRJIT_LIBLLVM_PATH"):
            raise
        raise MachineError(
            "Dr.Jit was imported before raytrace_face could give it a libLLVM, and took one that does not work: call "
            f"raytrace_face.backend.start() before importing mitsuba, or set DRJIT_LIBLLVM_PATH={packaged}"
        ) from error
    import drjit as dr

    if mi.variant().startswith("llvm"):
        dr.set_thread_count(1 if deterministic else _threads())
    from raytrace_face.tracer import skin

    skin.register(mi)
    return mi


def ensure_started() -> None:
    """Start the backend as `start` does by default, unless something has started it already."""
    mitsuba = sys.modules.get("mitsuba")
    if mitsuba is None or mitsuba.variant() is None:
        start()


def threads_each(threads: int) -> dict[str, str]:
    """Environment of processes that are to take so many threads each, in the tracer and in linear algebra."""
    return dict.fromkeys((*LIBRARY_THREADS, THREADS_VARIABLE), str(threads))


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for processes started inside the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _threads() -> int:
    """Threads of the tracer: all cores, or `RAYTRACE_FACE_THREADS`, so that several processes can share a machine.

    Raises:
        MachineError: the variable is no positive number.
    """
    given = os.environ.get(THREADS_VARIABLE)
    if given is None:
        return max(os.cpu_count() or 1, 1)
    if not given.isdecimal() or int(given) < 1:
        raise MachineError(f"{THREADS_VARIABLE} is {given!r}: it must be a number of threads, 1 or more")
    return int(given)


def _import_mitsuba(device: str) -> ModuleType:
    if "drjit" not in sys.modules and device != "cuda":
        lib = find_libllvm()
        if lib.path:
            os.environ["DRJIT_LIBLLVM_PATH"] = lib.path
    try:
        return importlib.import_module("mitsuba")
    except ImportError as error:
        raise MachineError(
            f"mitsuba cannot be imported ({error}): reinstall raytrace-face in a fresh environment"
        ) from error


def _set_variant(mi: Any, device: str) -> None:
    active = mi.variant()
    if active is None:
        wanted = VARIANTS["llvm" if device == "auto" else device]
        try:
            mi.set_variant(wanted)
            import drjit as dr

            if wanted.startswith("cuda"):
                dr.eval(dr.arange(mi.Float, 2))
        except Exception as error:
            if device == "cuda":
                raise MachineError(
                    f"device is 'cuda' but no usable NVIDIA driver was found ({error}): use --device llvm"
                ) from error
            raise MachineError(
                f"no libLLVM of version {MIN_LLVM} or newer was found ({error}): {INSTALL_HINT}"
            ) from error
    elif not active.endswith("_ad_rgb"):
        raise MachineError(
            f"Mitsuba variant {active} is active, but an *_ad_rgb variant is needed: "
            f"set one of {sorted(VARIANTS.values())}"
        )
    elif device != "auto" and active != VARIANTS[device]:
        raise MachineError(
            f"Mitsuba variant {active} is active, but device is {device!r}: use --device auto or a new process"
        )


def _check_llvm(mi: Any) -> None:
    """Refuse an LLVM that would abort the process at the first kernel."""
    import drjit as dr

    version = dr.detail.llvm_version()
    if mi.variant().startswith("llvm") and version[0] < MIN_LLVM:
        raise MachineError(
            f"libLLVM found: {'.'.join(map(str, version))}, needed: {MIN_LLVM} or newer (15 and 16 abort the process): "
            f"{INSTALL_HINT}"
        )


# Names of the parameters of a Mitsuba mesh. They change in 3.10 (flat -> (P, 3) "positions"), hence one place.
MESH_POSITIONS = "vertex_positions"
MESH_FACES = "faces"
MESH_UV = "vertex_texcoords"
