"""Putting the page together: one HTML file that asks the network for nothing and says so to the browser."""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from raytrace_face.errors import OutputError
from raytrace_face.report import figures, stage
from raytrace_face.report.head import viewer_data
from raytrace_face.report.onelight import trace
from raytrace_face.report.packing import data_uri

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction

NAME = "report.html"
CLAY = 0.42
"""Radiance of clay in the photo's light: a middle tone on the screen."""
SCRIPTS = ("gl.js", "stage.js", "lights.js", "viewer.js", "page.js")


def page(result: Reconstruction) -> str:
    """The HTML of a reconstruction's report; traces its one-light images (a few seconds)."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    images = trace(result)
    count = result.lights.rig.count
    photo, rendered = figures.compared(result, images)
    face, skin = figures.observed_share(result)
    level = figures.light_level(result)
    shared = {"level": level, "clay": min(CLAY / level, 0.9)}
    style = asset("report.css")
    script = '(() => {\n"use strict";\n' + "\n".join(asset(name) for name in SCRIPTS) + "})();\n"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(asset("report.html.j2")).render(
        result=result,
        style=Markup(style),  # our own files, not data: the only two things that are not escaped
        script=Markup(script),
        policy=policy(style, script),
        figures=figures.figures(result),
        photo=photo,
        rendered=rendered,
        sheet=data_uri(stage.contact_sheet(images, count), "jpeg"),
        stills=figures.stills(result),
        curves=figures.curves(result),
        face_share=100 * face,
        skin_share=100 * skin,
        command=figures.command(result),
        config_file=figures.config_file(result.config),
        settings=figures.settings(result.config),
        data={"stage": stage.stage_data(result, images) | shared, "viewer": viewer_data(result) | shared},
    )


def policy(style: str, script: str) -> str:
    """Content security policy: our own style and script by their digests, embedded pictures, nothing else at all."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    style_digest, script_digest = (f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; img-src data:; style-src {style_digest}; script-src {script_digest}"


def asset(name: str) -> str:
    """A file of this package as text."""
    return (resources.files("raytrace_face.report") / "assets" / name).read_text("utf-8")


def write(result: Reconstruction, folder: Path) -> None:
    """Write `report.html` into an existing folder, in one piece.

    Raises:
        OutputError: it cannot be written.
    """
    text = page(result)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{NAME}-", dir=folder)
        temporary = Path(name)
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        temporary.replace(folder / NAME)
    except OSError as error:
        raise OutputError(
            f"report {str(folder / NAME)!r} cannot be written ({error.strerror}): make room there, or copy the result"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
