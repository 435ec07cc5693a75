"""The part of Blender's Python API that the exported script may use, to run it without Blender.

`API` was written from the Blender Python API documentation (4.2; the same names are there in 3.6): an attribute that
is not listed raises AttributeError, on reading and on writing, and so does a socket that the version does not have.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

API = {
    "BlendData": {"scenes", "meshes", "objects", "materials", "images", "cameras", "worlds"},
    "Context": {"window"},
    "Window": {"scene"},
    "Scene": {"collection", "camera", "world", "render", "view_settings", "cycles", "name"},
    "Collection": {"objects"},
    "RenderSettings": {"engine", "resolution_x", "resolution_y", "resolution_percentage", "film_transparent"},
    "ColorManagedViewSettings": {"view_transform"},
    "CyclesRenderSettings": {"samples", "use_denoising", "max_bounces", "pixel_filter_type"},
    "Mesh": {"from_pydata", "uv_layers", "materials", "polygons", "update", "name"},
    "MeshUVLoopLayer": {"data"},
    "Object": {"data", "shape_key_add", "visible_camera", "matrix_world", "name"},
    "ShapeKey": {"data", "slider_min", "slider_max", "value", "name"},
    "Material": {"use_nodes", "node_tree", "name"},
    "World": {"use_nodes", "node_tree", "name"},
    "NodeTree": {"nodes", "links"},
    "Image": {"colorspace_settings", "filepath"},
    "ColorManagedInputColorspaceSettings": {"name"},
    "Camera": {"sensor_fit", "sensor_width", "lens", "shift_x", "shift_y", "clip_start", "clip_end", "name"},
    "NodeSocket": {"default_value", "name"},
    "ShaderNodeBsdfPrincipled": {"inputs", "outputs", "distribution"},
    "ShaderNodeOutputMaterial": {"inputs", "outputs"},
    "ShaderNodeOutputWorld": {"inputs", "outputs"},
    "ShaderNodeTexImage": {"inputs", "outputs", "image", "extension"},
    "ShaderNodeTexEnvironment": {"inputs", "outputs", "image"},
    "ShaderNodeEmission": {"inputs", "outputs"},
    "ShaderNodeBackground": {"inputs", "outputs"},
}
CHOICES = {
    "engine": {"CYCLES", "BLENDER_WORKBENCH"},
    "view_transform": {"Standard", "Filmic", "AgX", "Raw"},
    "pixel_filter_type": {"BOX", "GAUSSIAN", "BLACKMAN_HARRIS"},
    "sensor_fit": {"AUTO", "HORIZONTAL", "VERTICAL"},
    "extension": {"REPEAT", "EXTEND", "CLIP", "MIRROR"},
    "distribution": {"GGX", "MULTI_GGX"},
}
"""Values of enumerations; others are refused, as Blender does."""
LEVEL = {3: "Specular", 4: "Specular IOR Level"}
SOCKETS = {
    "ShaderNodeBsdfPrincipled": ({"Base Color", "Metallic", "Roughness", "IOR", "Alpha", "Normal"}, {"BSDF"}),
    "ShaderNodeOutputMaterial": ({"Surface", "Volume", "Displacement"}, set()),
    "ShaderNodeOutputWorld": ({"Surface", "Volume"}, set()),
    "ShaderNodeTexImage": ({"Vector"}, {"Color", "Alpha"}),
    "ShaderNodeTexEnvironment": ({"Vector"}, {"Color"}),
    "ShaderNodeEmission": ({"Color", "Strength"}, {"Emission"}),
    "ShaderNodeBackground": ({"Color", "Strength"}, {"Background"}),
}
"""Inputs and outputs of nodes; the Principled BSDF has `LEVEL` besides."""


class Thing:
    """An object of a type of `API`."""

    def __init__(self, kind: str, **values: Any) -> None:
        object.__setattr__(self, "_kind", kind)
        for name, value in values.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in API[self._kind]:
            raise AttributeError(f"{self._kind} has no {name}")
        if name in CHOICES and value not in CHOICES[name]:
            raise TypeError(f"{value!r} is no {name}")
        object.__setattr__(self, name, value)


class Named(dict):
    """bpy_prop_collection: items by name, `new` makes one."""

    def __init__(self, make: Any = None, items: Any = ()) -> None:
        super().__init__(items)
        self._make = make

    def new(self, name: str, *arguments: Any) -> Any:
        self[name] = self._make(name, *arguments)
        return self[name]


class Items(list):
    """bpy_prop_collection with one attribute an item, set at once."""

    def __init__(self, count: int, widths: dict[str, int]) -> None:
        super().__init__(range(count))
        self._widths, self.values = widths, {}

    def foreach_set(self, name: str, values: Any) -> None:
        flat = np.asarray(values)
        if flat.shape != (len(self) * self._widths[name],):
            raise RuntimeError(f"{name}: {flat.shape} for {len(self)} items")
        self.values[name] = flat


class Linked(list):
    def link(self, thing: Any) -> None:
        self.append(thing)


def _mesh(name: str) -> Thing:
    mesh = Thing("Mesh", name=name, materials=[], update=lambda: None)

    def from_pydata(vertices: list, edges: list, faces: list) -> None:
        if edges or not all(isinstance(p, list) and len(p) == 3 for p in vertices):
            raise TypeError("vertices are lists of three numbers")
        corners = sum(map(len, faces))
        object.__setattr__(mesh, "vertices", np.array(vertices))
        object.__setattr__(mesh, "faces", np.array(faces))
        mesh.polygons = Items(len(faces), {"material_index": 1, "use_smooth": 1})
        mesh.uv_layers = Named(lambda name: Thing("MeshUVLoopLayer", data=Items(corners, {"uv": 2})))

    mesh.from_pydata = from_pydata
    return mesh


def _object(name: str, data: Thing) -> Thing:
    thing = Thing("Object", name=name, data=data)
    object.__setattr__(thing, "keys", {})

    def shape_key_add(name: str = "Key", from_mix: bool = True) -> Thing:
        thing.keys[name] = Thing("ShapeKey", name=name, data=Items(len(data.vertices), {"co": 3}))
        return thing.keys[name]

    thing.shape_key_add = shape_key_add
    return thing


def _tree(version: int) -> Thing:
    class Nodes(list):
        def new(self, kind: str) -> Thing:
            inputs, outputs = SOCKETS[kind]
            extra = {LEVEL[version]} if kind == "ShaderNodeBsdfPrincipled" else set()
            node = Thing(kind)
            for side, names in (("inputs", inputs | extra), ("outputs", outputs)):
                setattr(node, side, Named(items={name: Thing("NodeSocket", name=name) for name in names}))
            self.append(node)
            return node

    class Links(list):
        def new(self, source: Thing, target: Thing) -> None:
            self.append((source, target))

    return Thing("NodeTree", nodes=Nodes(), links=Links())


def _image(path: str) -> Thing:
    return Thing("Image", filepath=path, colorspace_settings=Thing("ColorManagedInputColorspaceSettings"))


def _scene(name: str) -> Thing:
    return Thing(
        "Scene",
        name=name,
        collection=Thing("Collection", objects=Linked()),
        render=Thing("RenderSettings"),
        view_settings=Thing("ColorManagedViewSettings"),
        cycles=Thing("CyclesRenderSettings"),
    )


def modules(version: int, window: bool = True) -> dict[str, ModuleType]:
    """`bpy` and `mathutils` as Blender `version` (3 or 4) has them, for sys.modules."""
    bpy, mathutils = ModuleType("bpy"), ModuleType("mathutils")
    images = Named()
    images.load = lambda path: images.setdefault(path, _image(path))  # type: ignore[attr-defined]
    tree = {
        kind: (lambda name, kind=kind: Thing(kind, name=name, node_tree=_tree(version)))
        for kind in ("Material", "World")
    }
    bpy.data = Thing(  # type: ignore[attr-defined]
        "BlendData",
        scenes=Named(_scene),
        meshes=Named(_mesh),
        objects=Named(_object),
        materials=Named(tree["Material"]),
        worlds=Named(tree["World"]),
        cameras=Named(lambda name: Thing("Camera", name=name)),
        images=images,
    )
    bpy.context = Thing("Context", window=Thing("Window") if window else None)  # type: ignore[attr-defined]
    mathutils.Matrix = lambda rows: np.array(rows)  # type: ignore[attr-defined]
    return {"bpy": bpy, "mathutils": mathutils}
