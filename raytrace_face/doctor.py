"""`raytrace-face doctor`: what the program finds on this machine, and what to do about anything wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from raytrace_face.errors import RaytraceFaceError
from raytrace_face.output import sha256

NEEDED_BYTES = 3 * 1024**3
"""Memory of a `standard` reconstruction, with room to spare."""
ASSETS = Path(__file__).resolve().parent / "assets"


@dataclass
class Report:
    """Facts in order, and problems with what to do about them."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Aligned lines; the last ones say whether all is well."""
        width = max((len(name) for name, _ in self.facts), default=0)
        lines = [f"{name:<{width}}  {value}" for name, value in self.facts]
        lines += [f"PROBLEM: {problem}" for problem in self.problems] or ["All is well."]
        return "\n".join(lines)

    def attempt(self, name: str, examine: Callable[[], str]) -> None:
        """Add the fact that `examine` finds, or the problem that it raises."""
        try:
            self.facts.append((name, examine()))
        except RaytraceFaceError as error:
            self.facts.append((name, "FAILED"))
            self.problems.append(" ".join(str(error).split()))
        except Exception as error:  # the doctor is asked when things are odd: it must not fall ill itself
            self.facts.append((name, "FAILED"))
            reason = " ".join(str(error).split())[:200]
            self.problems.append(f"{name}: {type(error).__name__}: {reason}: reinstall raytrace-face")


def examine(device: str = "auto") -> Report:
    """Look at versions, cores, memory, libLLVM, Mitsuba and the embedded models."""
    from raytrace_face.result import installed_versions

    report = Report()
    for name, version in installed_versions().items():
        report.facts.append((name, version))
        if version == "not installed" and name != "raytrace-face":
            report.problems.append(f"{name} is not installed: reinstall raytrace-face in a fresh environment")
    report.facts.append(("executable", sys.executable))
    report.facts.append(("cores", str(usable_cores())))
    _memory(report)
    report.attempt("libLLVM", _libllvm)
    report.attempt("tracer", lambda: _tracer(device))
    for path in sorted(p for p in ASSETS.rglob("*") if p.suffix in (".npz", ".task", ".tflite")):
        report.facts.append((path.name, f"{path.stat().st_size / 1e6:.2f} MB  sha256 {sha256(path)}"))
    report.attempt("networks", _networks)
    report.attempt("face model", _face_model)
    _library(report)
    return report


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory(report: Report) -> None:
    try:
        page, total = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        free = os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        report.facts.append(("memory", "unknown"))
        return
    report.facts.append(("memory", f"{page * total / 1024**3:.1f} GiB, {page * free / 1024**3:.1f} GiB unused"))
    if page * total < NEEDED_BYTES:
        report.problems.append(
            f"memory is {page * total / 1024**3:.1f} GiB and a standard reconstruction takes up to "
            f"{NEEDED_BYTES / 1024**3:.0f} GiB: use --quality preview"
        )


def _libllvm() -> str:
    from raytrace_face.backend import find_libllvm

    found = find_libllvm()
    return f"{found.path or '(system)'}: {found.reason}"


def _tracer(device: str) -> str:
    """Start the tracer and run one small kernel, so that a broken compiler shows here and not in the first photo."""
    from raytrace_face.backend import start

    mi = start(device)
    import drjit as dr

    total = float(dr.sum(dr.arange(mi.Float, 5))[0])
    if total != 10.0:
        raise RuntimeError(f"a kernel that must give 10 gave {total}")
    variant = mi.variant()
    if variant.startswith("llvm"):
        return f"{variant}, LLVM {'.'.join(map(str, dr.detail.llvm_version()))}, {dr.thread_count()} threads"
    return str(variant)


def _networks() -> str:
    from raytrace_face.capture.networks import MEMBERS, network, read_verified

    for file, _ in MEMBERS.values():
        read_verified(file)
    for name in MEMBERS:
        network(name)
    return "match their recorded sha256 and load"


def _face_model() -> str:
    from raytrace_face.face.store import load_embedded

    model = load_embedded()
    return (
        f"{model.name}: {model.vertex_count} vertices, {len(model.identity)} identity modes, "
        f"{len(model.expression_names)} expressions, {model.licence}"
    )


def _library(report: Report) -> None:
    """The face models that the user brought, each read and checked."""
    from raytrace_face.face import library

    report.facts.append(("library", str(library.home())))
    for entry in library.list_models():
        report.attempt(f"model {entry.name}", lambda folder=entry.folder: _brought(folder))  # type: ignore[misc]


def _brought(folder: Path) -> str:
    from raytrace_face.face import archive

    model = archive.load(folder)
    return f"{model.vertex_count} vertices, {len(model.identity)} identity modes, {model.licence}"
