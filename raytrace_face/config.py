"""Settings of a reconstruction, as a tree of frozen dataclasses.

The command line, `--config file.toml`, `result.json` and the documentation are generated from this tree.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from raytrace_face.errors import InputError

Quality = Literal["preview", "standard", "high"]
Solver = Literal["transport", "montecarlo"]
Start = Literal["landmarks", "encoder"]
Device = Literal["auto", "llvm", "cuda"]
Colour = Literal["srgb", "linear"]


@dataclass(frozen=True)
class LightConfig:
    """Light estimation."""

    kind: str = "sparse"
    """sparse: few lights, found greedily. dense: least squares over the whole search stage. sh: ambient alone, of
    order 2. The last two are there to measure what sparsity and area lights buy."""
    rig: str = "icosahedron"
    """Polyhedron: tetrahedron, octahedron, icosahedron (the choice of EG 2021) or geodesic1."""
    search_level: int = 2
    """Geodesic level of the dense search stage, [1, 3]: 2 is 162 directions 16 degrees apart."""
    max_lights: int = 3
    """Most area lights the greedy solve may switch on, [1, 20]. Sparsity is what finds the light (docs/method.md)."""
    light_penalty: float = 0.15
    """Relative drop of the robust cost that one more light must buy, [0, 1)."""
    angular_radius_deg: float = 4.0
    """Radius of the search lights in degrees, [0.3, 15]: a studio light; the sun is 0.27."""
    shadows: bool = True
    """Trace visibility. Off only to measure what it buys."""
    robust: bool = True
    """Cauchy loss; off: least squares, only to measure what robustness buys."""
    refine: bool = True
    """Turn lights between the directions of the search stage. Off only to measure what it buys."""


@dataclass(frozen=True)
class Stage1Config:
    """Light, shadow, pose, identity, expression under statistical albedo."""

    size: int = 128
    """Pixels a side of the fit in stage 1, [32, 512]."""
    rounds: int = 3
    """Alternations of light solve and geometry step, [1, 20]."""
    samples: int = 4
    """Rays a pixel of the transport, [1, 64]."""
    photometric_sigma: float = 0.20
    """Standard deviation of the photometric residual relative to the mean radiance of the face, [0.01, 1]: skin
    detail that the statistical albedo cannot express. Sets photometric against landmark evidence."""
    correlated_pixels: float = 5.0
    """Pixels (at 128 px) that err together, [1, 1000]: the photometric evidence is divided by it, because skin detail
    is correlated over millimetres and counting every pixel would drown landmarks and prior."""
    shape: str = "shading"
    """What moves identity and expression. shading: landmarks, then shading with them. landmarks: they alone. mean:
    nothing, the mean face is posed, with the network's expression. The last two are there to measure what shape from
    shading buys."""
    albedo: bool = True
    """Fit the statistical albedo to the photo. Off (the mean skin) only to measure what it buys."""
    montecarlo_iterations: int = 0
    """Monte-Carlo gradient steps on lights, pose and shape after the rounds, [0, 100000]; 20 in quality high. A dozen
    take as much time as all the rest of stage 1 (docs/method.md)."""


@dataclass(frozen=True)
class Stage2Config:
    """Personal diffuse, specular and roughness maps; light and geometry held."""

    personal: bool = True
    """Fit the maps. Off (statistical albedo, prior F0 and roughness) only to measure what it buys."""
    size: int = 256
    """Pixels a side of the fit in stage 2, [32, 1024]."""
    texture: int = 512
    """Texels a side of the maps, [64, 2048]."""
    samples: int = 8
    """Rays a pixel of the transport, [1, 64]."""
    iterations: int = 60
    """Most L-BFGS steps on F0 and roughness, [0, 2000]."""
    symmetry: float = 0.15
    """Left-right symmetry: weight on F0 and roughness; of diffuse albedo the surer side lends to the other, fully
    from 0.25 on."""
    consistency: float = 0.02
    """Weight of closeness of F0 and roughness to their regional priors."""
    smoothness: float = 0.02
    """Weight of the smoothness of F0 and roughness."""


@dataclass(frozen=True)
class MonteCarloConfig:
    """The plain published way (`--solver montecarlo`): everything by gradient descent through the tracer."""

    stage1_iterations: int = 250
    """Adam steps of stage 1, [1, 10000]."""
    stage2_iterations: int = 120
    """Adam steps of stage 2, [1, 10000]."""
    samples: int = 8
    """Rays a pixel (ICCV 2021: no gain from 16 or 32), [1, 256]."""


@dataclass(frozen=True)
class Config:
    """Everything that decides a reconstruction, besides the photo."""

    quality: Quality = "standard"
    """preview, standard or high: sizes and iterations, see `resolved`."""
    solver: Solver = "transport"
    """transport: linear unknowns by transport, the rest by Monte-Carlo gradients. montecarlo: all by gradients."""
    start: Start = "landmarks"
    """Where the fit begins. landmarks: the mean skin on a face fitted to them, lights searched over the whole stage.
    encoder: the face, skin and lights that the trained network sees, in half of the time; where it doubts,
    landmarks."""
    weights: str = ""
    """The encoder's weights, a file of `train export`; empty: the shipped ones."""
    seed: int = 0
    """Seed of all randomness."""
    deterministic: bool = False
    """One Dr.Jit thread: same input, seed and machine give the same bytes."""
    device: Device = "auto"
    """auto, llvm (CPU) or cuda."""
    colour: Colour = "srgb"
    """How 8- and 16-bit pixels are encoded: srgb (photographs) or linear (machine-vision cameras)."""
    face_model: str = "embedded"
    """Face model: embedded, the name of one in the library, or the path of a model folder (docs/face-models.md)."""
    face: int | None = None
    """Which face, 0 = largest; none = the largest, with a warning when there are several."""
    iterations: int | None = None
    """Overrides the number of gradient steps of both stages."""
    light: LightConfig = field(default_factory=LightConfig)
    stage1: Stage1Config = field(default_factory=Stage1Config)
    stage2: Stage2Config = field(default_factory=Stage2Config)
    montecarlo: MonteCarloConfig = field(default_factory=MonteCarloConfig)

    def resolved(self) -> Config:
        """The configuration with `quality` and `iterations` worked into the stages, and every value checked.

        Raises:
            InputError: a value outside its range.
        """
        config = self
        one, two = self.stage1, self.stage2
        if self.quality == "preview":
            config = replace(
                config,
                stage1=replace(one, rounds=min(one.rounds, 2), size=min(one.size, 96)),
                stage2=replace(
                    two,
                    iterations=min(two.iterations, 25),
                    samples=min(two.samples, 4),
                    texture=min(two.texture, 256),
                ),
            )
        elif self.quality == "high":
            config = replace(
                config,
                stage1=replace(
                    one,
                    rounds=max(one.rounds, 5),
                    samples=max(one.samples, 8),
                    montecarlo_iterations=max(one.montecarlo_iterations, 20),
                ),
                stage2=replace(
                    two,
                    size=max(two.size, 512),
                    texture=max(two.texture, 1024),
                    iterations=max(two.iterations, 120),
                ),
            )
        elif self.quality != "standard":
            raise InputError(f"quality is {self.quality!r}: use one of preview, standard, high")
        if self.iterations is not None:
            config = replace(
                config,
                stage1=replace(config.stage1, montecarlo_iterations=self.iterations),
                stage2=replace(config.stage2, iterations=self.iterations),
                montecarlo=replace(
                    config.montecarlo, stage1_iterations=self.iterations, stage2_iterations=self.iterations
                ),
            )
        _check(config)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], base: Config | None = None) -> Config:
        """The inverse of `to_dict`; missing keys keep the value of `base`.

        Raises:
            InputError: a key that does not exist (with the nearest that does) or a value of the wrong type.
        """
        return merged(cls() if base is None else base, values, "")

    @classmethod
    def from_toml(cls, path: Path) -> Config:
        """Read a TOML file with the same nesting as this class."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"config file {str(path)!r} cannot be read ({error.strerror}): check the path") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"config file {str(path)!r} is not valid TOML ({error}): correct it") from error
        return cls.from_dict(values)


RANGES: dict[str, tuple[float, float]] = {
    "iterations": (0, 100000),
    "light.search_level": (1, 3),
    "light.max_lights": (1, 20),
    "light.light_penalty": (0, 0.999),
    "light.angular_radius_deg": (0.3, 15),
    "stage1.size": (32, 512),
    "stage1.rounds": (1, 20),
    "stage1.samples": (1, 64),
    "stage1.photometric_sigma": (0.01, 1),
    "stage1.correlated_pixels": (1, 1000),
    "stage1.montecarlo_iterations": (0, 100000),
    "stage2.size": (32, 1024),
    "stage2.texture": (64, 2048),
    "stage2.samples": (1, 64),
    "stage2.iterations": (0, 100000),
    "stage2.symmetry": (0, 100),
    "stage2.consistency": (0, 100),
    "stage2.smoothness": (0, 100),
    "montecarlo.stage1_iterations": (0, 100000),
    "montecarlo.stage2_iterations": (0, 100000),
    "montecarlo.samples": (1, 256),
    "seed": (0, 2**31 - 1),
    "face": (0, 1000),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "solver": ("transport", "montecarlo"),
    "start": ("landmarks", "encoder"),
    "device": ("auto", "llvm", "cuda"),
    "colour": ("srgb", "linear"),
    "light.kind": ("sparse", "dense", "sh"),
    "stage1.shape": ("shading", "landmarks", "mean"),
    "light.rig": ("tetrahedron", "octahedron", "icosahedron", "geodesic1"),
}


def _check(config: Config) -> None:
    if not config.face_model:
        raise InputError("face_model is empty: use embedded, a name of the library or the path of a model folder")
    for name, (low, high) in RANGES.items():
        value = _lookup(config, name)
        if value is not None and not low <= value <= high:
            raise InputError(f"{name} is {value}: it must lie in [{low:g}, {high:g}]")
    for name, choices in CHOICES.items():
        if _lookup(config, name) not in choices:
            raise InputError(f"{name} is {_lookup(config, name)!r}: use one of {', '.join(choices)}")
    _check_start(config)
    _check_ablations(config)


def _check_start(config: Config) -> None:
    if config.start == "landmarks":
        if config.weights:
            raise InputError(f"weights is {config.weights!r}, but start is landmarks: use start encoder with it")
        return
    others = {
        "solver": (config.solver, "transport"),
        "face_model": (config.face_model, "embedded"),
        "light.kind": (config.light.kind, "sparse"),
        "stage1.shape": (config.stage1.shape, "shading"),
    }
    for name, (value, needed) in others.items():
        if value != needed:
            raise InputError(f"{name} is {value!r}, which start encoder cannot serve: use {needed}, or start landmarks")


def _check_ablations(config: Config) -> None:
    """Gradient steps move light, shape and albedo, whatever was switched off."""
    off = {
        "light.kind": config.light.kind != "sparse",
        "light.refine": not config.light.refine,
        "stage1.shape": config.stage1.shape != "shading",
        "stage1.albedo": not config.stage1.albedo,
    }
    if any(off.values()) and (config.solver == "montecarlo" or config.stage1.montecarlo_iterations):
        name = next(name for name, is_off in off.items() if is_off)
        raise InputError(
            f"{name} switches off what gradient steps fit all the same (solver montecarlo, quality high, iterations): "
            "leave one of them out"
        )


def _lookup(config: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        config = getattr(config, part)
    return config


def merged(node: Any, values: dict[str, Any], prefix: str) -> Any:
    """A dataclass with some values replaced; InputError names a key that does not exist, or a value of another type."""
    import difflib

    known = {f.name: getattr(node, f.name) for f in fields(node)}
    changes: dict[str, Any] = {}
    for key, value in values.items():
        name = prefix + key
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f", did you mean {prefix + near[0]!r}?" if near else f": known are {', '.join(known)}"
            raise InputError(f"config has no setting {name!r}{hint}")
        old = known[key]
        if is_dataclass(old):
            if not isinstance(value, dict):
                raise InputError(f"config setting {name!r} is {value!r}: it must be a table")
            changes[key] = merged(old, value, name + ".")
        elif key in ("face", "iterations") and (value is None or type(value) is int):
            changes[key] = value
        elif isinstance(old, float) and type(value) is int:
            changes[key] = float(value)
        elif type(value) is type(old):
            changes[key] = value
        else:
            raise InputError(f"config setting {name!r} is {value!r}: it must be a {type(old).__name__}")
    return replace(node, **changes)
