"""Rationale: what runs from the source tree must run from the wheel, in an environment that has what it asks for."""

from __future__ import annotations

import ast
import os
import platform
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PACKAGES = ("raytrace_face", "lightstage", "scenes")
DISTRIBUTION = {
    "PIL": "pillow", "skimage": "scikit-image", "OpenEXR": "openexr", "ai_edge_litert": "ai-edge-litert",
    "imageio_ffmpeg": "imageio-ffmpeg", "lightning_fabric": "lightning-fabric",
}  # fmt: skip
"""Distributions that are not named as their modules are."""
OPTIONAL = {"ray": "ray", "lightning-fabric": "train"}
"""Distribution -> the extra that has it: imported where it is asked for, with a clear line where it is missing."""


def code(folder: Path) -> list[Path]:
    """Python files that this program runs: not those among the assets, which are data (a script for Blender)."""
    return [path for path in folder.rglob("*.py") if "assets" not in path.parts]


def third_party(folder: Path) -> set[str]:
    """Top-level modules from elsewhere that the Python files of a folder import, at once or lazily."""
    found: set[str] = set()
    for path in code(folder):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {*PACKAGES, "tests", "benchmarks"}


def declared(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", line.strip())[0].lower() for line in requirements}


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_imported_is_asked_for(package):
    names = {DISTRIBUTION.get(m, m) for m in third_party(ROOT / package)}
    assert names - OPTIONAL.keys() <= declared(PROJECT["project"]["dependencies"])
    extras = PROJECT["project"]["optional-dependencies"]
    assert all(name in declared(extras[extra]) for name, extra in OPTIONAL.items())


def test_what_the_tests_import_is_asked_for():
    project = PROJECT["project"]
    asked = declared([*project["dependencies"], *project["optional-dependencies"]["test"]])
    own = {path.stem for path in (ROOT / "tests").rglob("*.py")}
    assert {DISTRIBUTION.get(m, m) for m in third_party(ROOT / "tests")} - OPTIONAL.keys() - own <= asked


@pytest.mark.parametrize("package", PACKAGES)
def test_data_files_are_in_the_wheel(package):
    patterns = PROJECT["tool"]["setuptools"]["package-data"][package]
    for path in (ROOT / package).rglob("*"):
        if path.is_dir() or path.suffix in (".py", ".pyc"):
            continue
        name = str(path.relative_to(ROOT / package))
        assert any(fnmatch(name, pattern.replace("**/", "")) for pattern in patterns), f"{package}/{name}"


def test_every_folder_of_code_is_a_package():
    for package in PACKAGES:
        for path in code(ROOT / package):
            assert (path.parent / "__init__.py").is_file(), path.parent


@pytest.mark.slow
@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="only there does a package carry libLLVM"
)
def test_doctor_finds_its_own_compiler_without_help(tmp_path):
    """Outside the source folder and with no hint from the environment, as on a user's machine."""
    env = {k: v for k, v in os.environ.items() if k != "DRJIT_LIBLLVM_PATH"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", "raytrace_face", "doctor", "--device", "llvm"],
        capture_output=True, text=True, cwd=tmp_path, env=env, timeout=300,
    )  # fmt: skip
    assert "karellen-llvm-core" in done.stdout, done.stdout + done.stderr
    assert "FAILED" not in done.stdout, done.stdout
