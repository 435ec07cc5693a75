"""How the encoder is trained: sizes, stages, learning rates and weights, each with its reason.

Four stages: (a) the encoder on synthetic photos, whose truth is known; (b) the same with real photos through the
tracer, a part of every step; the texture decoders on the fixed encoder; everything together. The last three are the
curriculum of ICCV 2021 (arXiv 2103.15432). A stage has its own optimiser and schedule: warm-up, then half a cosine to
zero (Loshchilov & Hutter, ICLR 2017).
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from raytrace_face.config import merged
from raytrace_face.errors import InputError


@dataclass(frozen=True)
class Network:
    """Sizes of the network; `learn.encoder.EncoderConfig` and `learn.decoders.Decoders` say what they mean."""

    crop: int = 128
    """Pixels a side."""
    width: int = 32
    """Channels at the first scale, half of ResNet-18's: two such networks look at a photo."""
    latent: int = 256
    """Numbers in the code."""
    texture: int = 128
    """Texels a side: as many as the truth of synthetic photos has."""
    decoder_width: int = 32
    """Channels of the decoders' coarsest layer."""


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum. Sizes of batches are those of one process."""

    epochs: int
    """Times the synthetic photos are seen, [0, 100000]; 0 leaves the stage out."""
    synthetic: int
    """Synthetic photos a step, [1, 4096]."""
    real: int
    """Real photos a step, [0, 4096]; 0 where there are none."""
    learning_rate: float
    """Of AdamW, at its peak."""
    encoder: bool = True
    """Whether the encoder learns."""
    decoders: bool = False
    """Whether the decoders learn; before that, maps are the statistical ones."""


@dataclass(frozen=True)
class Weights:
    """Weights of the losses in their sum (`learn.losses`).

    Each brings its term to about one at the start of training, which is the mean face under soft light; departures
    from that are said.
    """

    vertices: float = 0.3
    """A mm of vertex distance: the landmark fit is off by 3.7 mm."""
    rotation: float = 10.0
    """A squared radian: the start has 0.04 of them, 11 degrees."""
    landmarks: float = 1.5
    """Robust squares of standard deviations: the start has 0.2 of them. Less than one, and from there on they count:
    what places the face best is what photometry needs most."""
    distance: float = 0.1
    """A squared standard deviation of log distance. A tenth: a face says little of it, and the loss must not drown
    what it says."""
    light: float = 1.0
    """Difference of light on the sphere over its strength: 0.73 for soft light from the front."""
    dominant: float = 1.5
    """Distance of the main light on the unit sphere: 0.9. Half more: it is what is asked of the encoder first."""
    albedo: float = 1.5
    """Log albedo: skins differ from their mean by 0.57."""
    detail: float = 3.0
    """The same without its mean over the face, for the decoders: 0.15 for the statistical map."""
    specular: float = 1.0
    """Log F0 of the map, once the decoders learn; of the size of log albedo."""
    confidence: float = 0.1
    """Log likelihood of the map's error. A tenth: it only has to order texels, and is unbounded below."""
    photometric: float = 4.0
    """Relative difference of pixels: 0.6 on portraits before they were seen, 0.1 once decoders follow them. It is what
    real photos teach, and they are a quarter of a step."""
    expression: float = 0.2
    """Prior of expression; landmarks see most of it, and the landmark network's weights are off by half a sigma."""
    prior: float = 0.05
    """Priors of identity, skin, distance and exposure: one number against some thousand pixels."""
    spread: float = 0.05
    """Few lights before many: only where the picture does not care."""
    person: float = 0.2
    """Same identity and skin in two photos of one person."""
    maps: float = 0.5
    """Symmetry, closeness to the statistical maps and smoothness of what the decoders add."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training, besides the data."""

    seed: int = 0
    """Of first weights, order, light, camera and noise."""
    network: Network = field(default_factory=Network)
    supervised: Stage = Stage(epochs=20, synthetic=16, real=0, learning_rate=5e-4)
    """(a) 20 epochs of 4000 sittings are 79 k photos. 5e-4: with 1e-3 a short run came less far on held-out
    photos (docs/encoder.md)."""
    traced: Stage = Stage(epochs=1, synthetic=12, real=4, learning_rate=1e-4)
    """(b) 0.3 s a real photo, 15 times a synthetic one, so a quarter of the batch."""
    textures: Stage = Stage(epochs=4, synthetic=12, real=4, learning_rate=5e-4, encoder=False, decoders=True)
    """Decoders on the fixed encoder. Real photos are traced once, as columns."""
    joint: Stage = Stage(epochs=3, synthetic=12, real=4, learning_rate=1e-4, decoders=True)
    """Everything together, at the rate of (b)."""
    weights: Weights = field(default_factory=Weights)
    hints: float = 0.85
    """Share of photos whose landmarks the network is told; the rest must do without. 1 would unlearn the latter."""
    warm_up: float = 0.05
    """Share of a stage's steps in which the learning rate rises."""
    decay: float = 0.02
    """AdamW's weight decay, on matrices and kernels only."""
    clip: float = 10.0
    """Greatest norm of a gradient: one strange photo must not undo a hundred steps."""
    picture: int = 96
    """Pixels a side of traced pictures; half the time of a trace is its start, so smaller ones gain little."""
    samples: int = 8
    """Rays a pixel (ICCV 2021: no gain from 16 or 32)."""
    shadows: bool = True
    """Whether light is traced to the face where the encoder learns; off only to measure what shadows buy."""
    held_out: int = 64
    """Sittings kept for validation, the last ones; at most a quarter."""
    validate: int = 1
    """Epochs between validations, and at the end of a stage; some ten seconds of one core each."""
    keep_columns: int = 400
    """Real photos whose columns are kept in memory, about 1 MB each."""

    def stages(self) -> dict[str, Stage]:
        """The stages in their order, without those that have no epochs."""
        named = {name: getattr(self, name) for name in ("supervised", "traced", "textures", "joint")}
        return {name: stage for name, stage in named.items() if stage.epochs}

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """The inverse of `to_dict`; missing keys keep their defaults.

        Raises:
            InputError: a key that does not exist, a value of another type or outside its range.
        """
        recipe: Recipe = merged(cls(), values, "")
        _check(recipe, "")
        return recipe

    @classmethod
    def from_toml(cls, path: Path) -> Recipe:
        """Read a TOML file with the same nesting as this class."""
        try:
            return cls.from_dict(tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise InputError(f"recipe {str(path)!r} cannot be read ({error.strerror}): check the path") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"recipe {str(path)!r} is not valid TOML ({error}): correct it") from error


RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**31 - 1), "crop": (64, 256), "width": (16, 128), "latent": (32, 1024), "texture": (32, 256),
    "decoder_width": (16, 256), "epochs": (0, 100000), "synthetic": (1, 4096), "real": (0, 4096),
    "learning_rate": (1e-8, 1), "hints": (0, 1), "warm_up": (0, 0.9), "decay": (0, 1), "clip": (1e-6, 1e6),
    "picture": (32, 256), "samples": (1, 256), "held_out": (1, 100000), "keep_columns": (0, 1000000),
    "validate": (1, 100000),
}  # fmt: skip
MULTIPLES = {"crop": 32, "width": 16, "texture": 32}


def _check(node: Any, prefix: str) -> None:
    for f in fields(node):
        value, name = getattr(node, f.name), prefix + f.name
        if is_dataclass(value):
            _check(value, name + ".")
            continue
        low, high = (0.0, 1e6) if isinstance(node, Weights) else RANGES.get(f.name, (0.0, 1.0))
        if not low <= value <= high:
            raise InputError(f"recipe setting {name!r} is {value}: it must lie in [{low:g}, {high:g}]")
        if value % MULTIPLES.get(f.name, 1) and f.name in MULTIPLES:
            raise InputError(f"recipe setting {name!r} is {value}: it must be a multiple of {MULTIPLES[f.name]}")
