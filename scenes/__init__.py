"""Mitsuba scenes as data: `mi.load_file(scenes.path("furnace"))` after `raytrace_face.backend.start()`.

They use the skin BSDF, so the plain `mitsuba` command cannot load them. Parameters are set as keyword arguments of
`mi.load_file`; each file says which it has.
"""

from importlib import resources
from pathlib import Path

NAMES = ("face", "furnace", "studio", "two_lights")


def path(name: str) -> Path:
    """The file of a scene by name.

    >>> path("furnace").name
    'furnace.xml'

    Raises:
        ValueError: the name is none of `NAMES`.
    """
    if name not in NAMES:
        raise ValueError(f"scene is {name!r}: use one of {', '.join(NAMES)}")
    return Path(str(resources.files("scenes") / f"{name}.xml"))
