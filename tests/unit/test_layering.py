"""Imports go downwards only, and only the tracer's side of the house knows Mitsuba."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = [
    *("lightstage", "errors", "types", "config", "output", "backend", "workers", "assets", "capture", "face", "tracer"),
    *("export", "picture", "export_scene", "export_obj", "export_blender", "panel", "pictures", "result_io", "result"),
    *("fit", "retrace", "adopt", "edit", "measure"),
    *("learn", "recover"),  # after the measures, by which the encoder is validated; where a fit begins with it
    *("compare", "compare_sheet", "benchmark", "evaluate", "report", "doctor", "cli_edit", "cli_export"),
    *("cli_compare", "cli_models", "cli_train", "cli_predict", "cli", "__main__"),
]
"""From the bottom up: a module imports from its own layer or from those before it. The package's `__init__` is lazy."""
MAY_IMPORT_THE_RENDERER = (
    *("raytrace_face/backend.py", "raytrace_face/tracer/", "lightstage/"),
    "raytrace_face/doctor.py",  # asks for versions
)
MAY_IMPORT_TORCH = ("raytrace_face/tracer/", "raytrace_face/fit/", "raytrace_face/learn/")
SOURCES = sorted(p for package in ("raytrace_face", "lightstage", "scenes") for p in (ROOT / package).rglob("*.py"))


def imported(path: Path, lazily: bool) -> set[str]:
    """Modules that a file imports when it is loaded, or (`lazily`) also inside its functions."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not lazily:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text("utf-8")))
    return found


def layer(module: str) -> int | None:
    """Position of a module in `LAYERS`; None for other packages, and for the bare package name."""
    parts = module.split(".")
    if module.startswith("raytrace_face.face.embedded"):  # builds the embedded model with everything there is
        return len(LAYERS)
    name = parts[0] if parts[0] == "lightstage" else None
    if parts[0] == "raytrace_face" and len(parts) > 1:
        name = parts[1]
    return LAYERS.index(name) if name in LAYERS else None


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_downwards(path):
    here = layer(name_of(path).removesuffix(".__init__"))
    if here is None:
        return
    # lazy imports count too, except those that close a loop on purpose: the BSDF needs the backend's variant, and
    # pictures that are asked for are traced
    allowed_up = {
        "raytrace_face.backend": ("raytrace_face.tracer",),
        "raytrace_face.pictures": ("raytrace_face.retrace",),
    }
    for module in imported(path, lazily=True):
        there = layer(module)
        if there is not None and not module.startswith(allowed_up.get(name_of(path), ("-",))):
            assert there <= here, f"{name_of(path)} imports {module}, which lies above it"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_renderer_and_torch_are_imported_only_where_they_are_used(path):
    relative = str(path.relative_to(ROOT))
    heads = {module.split(".")[0] for module in imported(path, lazily=False)}
    everything = {module.split(".")[0] for module in imported(path, lazily=True)}
    if not relative.startswith(MAY_IMPORT_THE_RENDERER):
        assert not everything & {"mitsuba", "drjit"}
    if not relative.startswith(MAY_IMPORT_TORCH):
        assert "torch" not in heads
    if "lightstage" in relative:
        assert "raytrace_face" not in everything, "the light stage knows nothing about faces"


def test_every_module_of_the_package_has_a_layer():
    for path in SOURCES:
        if path.is_relative_to(ROOT / "raytrace_face") and path.name != "__init__.py":
            assert layer(name_of(path)) is not None, f"{path} is not in LAYERS"


PROBE = """
import sys
{code}
heavy = [m for m in ("mitsuba", "drjit", "torch", "skimage", "PIL", "pygltflib") if m in sys.modules]
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "code",
    [
        "import raytrace_face; raytrace_face.__version__; dir(raytrace_face); raytrace_face.Config()",
        "import raytrace_face; raytrace_face.Reconstruction",
        "import lightstage, scenes; scenes.path('furnace')",
        "from raytrace_face.cli import run; assert run(['--help']) == 0; assert run(['reconstruct', '--help']) == 0",
        "from raytrace_face.cli import run; assert run(['--version']) == 0",
    ],
)
def test_light_things_load_nothing_heavy(code):
    """In a fresh process: no renderer, no torch, no image library; so no variant and no global state is touched."""
    done = subprocess.run([sys.executable, "-c", PROBE.format(code=code)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_leaves_the_users_variant_alone():
    code = (
        "import raytrace_face.backend as b; b._import_mitsuba('auto'); import mitsuba as mi; "
        "mi.set_variant('scalar_rgb'); import raytrace_face; raytrace_face.Reconstruction; "
        "assert mi.variant() == 'scalar_rgb'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_unknown_attribute_is_an_attribute_error():
    import raytrace_face

    with pytest.raises(AttributeError, match="reconstrukt"):
        raytrace_face.reconstrukt  # noqa: B018
