"""The skin BSDF: a GGX layer over a Lambertian base, with three textures.

    f = (1 - F(cos i)) (1 - F(cos o)) rho_d / pi  +  D(h) V(i, o) F(cos h)

F is Schlick's Fresnel (1994) from F0 at normal incidence to F90 = min(1, 25 F0) at grazing, so that F0 = 0 switches
the highlight off and F is *linear* in F0 up to 0.04, where skin lies: this is what makes specular albedo a linear
unknown (DESIGN: transport). D is GGX and V = G / (4 cos i cos o) the height-correlated Smith term (Walter et al.
2007; Heitz 2014, eq. 99). The base receives what the layer transmits on both passages, which keeps the sum below one
and the BSDF reciprocal. Roughness r is perceptual as in glTF: alpha = r^2.
"""

from __future__ import annotations

from typing import Any

import drjit as dr

MIN_ROUGHNESS = 0.05
"""Smallest perceptual roughness (alpha = 0.0025): below, float32 GGX loses its normalisation."""
F90_SCALE = 25.0
"""F90 = min(1, 25 F0): reaches 1 at F0 = 0.04, an index of refraction of 1.5."""

_registered: set[str] = set()


def fresnel(f0: Any, cos_theta: Any) -> Any:
    """Schlick's Fresnel reflectance for F0 (scalar or colour) at cos(theta)."""
    f90 = dr.minimum(F90_SCALE * f0, 1.0)
    return f0 + (f90 - f0) * schlick_weight(cos_theta)


def schlick_weight(cos_theta: Any) -> Any:
    """(1 - cos)^5."""
    m = dr.clip(1 - cos_theta, 0, 1)
    m2 = m * m
    return m2 * m2 * m


def ggx(cos_nh: Any, alpha: Any) -> Any:
    """GGX normal distribution D(h), 1/sr."""
    a2 = alpha * alpha
    t = cos_nh * cos_nh * (a2 - 1) + 1
    return a2 / (dr.pi * t * t)


def smith_visibility(cos_i: Any, cos_o: Any, alpha: Any) -> Any:
    """G / (4 cos i cos o), height-correlated Smith (Heitz 2014, eq. 99)."""
    a2 = alpha * alpha
    i = cos_o * dr.sqrt(a2 + (1 - a2) * cos_i * cos_i)
    o = cos_i * dr.sqrt(a2 + (1 - a2) * cos_o * cos_o)
    return 0.5 / dr.maximum(i + o, 1e-7)


def alpha_of(roughness: Any) -> Any:
    """Microfacet width alpha = r^2 of perceptual roughness r."""
    r = dr.clip(roughness, MIN_ROUGHNESS, 1.0)
    return r * r


def lobes(wi: Any, wo: Any, normal: Any, f0: Any, roughness: Any) -> tuple[Any, Any]:
    """The two lobes times cos(theta_o), for unit diffuse albedo and unit F0.

    Args:
        wi, wo: unit vectors to the viewer and to the light, in the frame of `normal`.
        normal: unit shading normal.
        f0: F0 that the diffuse base lies under (colour or scalar).
        roughness: perceptual roughness.

    Returns:
        diffuse: (1 - F_i)(1 - F_o) cos_o / pi, to be multiplied by the diffuse albedo.
        specular: D V cos_o F / F0, to be multiplied by F0 (exact for F0 <= 0.04).
    """
    cos_i, cos_o = dr.dot(wi, normal), dr.dot(wo, normal)
    valid = (cos_i > 1e-4) & (cos_o > 0)
    cos_i, cos_o = dr.maximum(cos_i, 1e-4), dr.maximum(cos_o, 0)
    h = dr.normalize(wi + wo)
    alpha = alpha_of(roughness)
    base = (1 - fresnel(f0, cos_i)) * (1 - fresnel(f0, cos_o)) * (cos_o / dr.pi)
    layer = ggx(dr.dot(h, normal), alpha) * smith_visibility(cos_i, cos_o, alpha) * cos_o
    layer *= 1 + (F90_SCALE - 1) * schlick_weight(dr.dot(wi, h))
    return dr.select(valid, base, 0), dr.select(valid, layer, 0)


def evaluate(wi: Any, wo: Any, normal: Any, diffuse: Any, f0: Any, roughness: Any) -> Any:
    """BSDF value times cos(theta_o), colour. Exact for every F0 in [0, 1]."""
    base, layer = evaluate_lobes(wi, wo, normal, diffuse, f0, roughness)
    return base + layer


def evaluate_lobes(wi: Any, wo: Any, normal: Any, diffuse: Any, f0: Any, roughness: Any) -> tuple[Any, Any]:
    """`evaluate`, base and layer apart."""
    base, layer = lobes(wi, wo, normal, f0, roughness)
    h = dr.normalize(wi + wo)
    weight = schlick_weight(dr.dot(wi, h))
    exact = fresnel(f0, dr.dot(wi, h)) / (1 + (F90_SCALE - 1) * weight)
    return diffuse * base, exact * layer


def sample_visible_normal(wi: Any, alpha: Any, u: Any) -> Any:
    """GGX half vector in the local frame by visible-normal sampling (Dupuy & Benyoub 2023, spherical caps)."""
    from mitsuba import Vector3f

    stretched = dr.normalize(Vector3f(wi.x * alpha, wi.y * alpha, wi.z))
    phi = 2 * dr.pi * u.x
    z = dr.fma(1 - u.y, 1 + stretched.z, -stretched.z)
    sin_theta = dr.sqrt(dr.clip(1 - z * z, 0, 1))
    h = Vector3f(sin_theta * dr.cos(phi), sin_theta * dr.sin(phi), z) + stretched
    return dr.normalize(Vector3f(h.x * alpha, h.y * alpha, dr.maximum(h.z, 1e-7)))


def specular_share(f0: Any, cos_i: Any) -> Any:
    """Probability of sampling the layer and not the base; detached from gradients as sampling must be."""
    return dr.detach(dr.clip(0.1 + 2 * dr.mean(fresnel(f0, cos_i)), 0.1, 0.9))


def reflected_direction(wi: Any, alpha: Any, u: Any) -> Any:
    """Mirror image of `wi` (local frame) in a visible normal; below the horizon where the sample is to be dropped."""
    h = sample_visible_normal(wi, alpha, u)
    return 2 * dr.dot(wi, h) * h - wi


def mixture_pdf(wi: Any, wo: Any, share: Any, alpha: Any) -> Any:
    """Density of visible-normal sampling with probability `share`, else of cosine sampling; local frame."""
    h = dr.normalize(wi + wo)
    # visible-normal density D G1(wi) max(0, wi.h) / wi.z, times the Jacobian 1 / (4 wi.h)
    g1_over_cos = 2 / (wi.z + dr.sqrt(alpha * alpha + (1 - alpha * alpha) * wi.z * wi.z))
    layer = ggx(h.z, alpha) * g1_over_cos / 4
    return dr.select((wi.z > 1e-4) & (wo.z > 0), share * layer + (1 - share) * wo.z / dr.pi, 0)


def register(mi: Any) -> None:
    """Make the plugin "skin" known to the active Mitsuba variant (once per variant)."""
    variant = mi.variant()
    if variant in _registered:
        return

    class Skin(mi.BSDF):
        """Textures `diffuse` (RGB), `specular` (RGB, F0) and `roughness` (scalar, perceptual)."""

        def __init__(self, props: Any) -> None:
            super().__init__(props)
            self.diffuse = props.get_texture("diffuse", 0.5)
            self.specular = props.get_texture("specular", 0.04)
            self.roughness = props.get_texture("roughness", 0.5)
            reflection = mi.BSDFFlags.FrontSide
            self.m_components = [
                mi.BSDFFlags.DiffuseReflection | reflection,
                mi.BSDFFlags.GlossyReflection | reflection,
            ]
            self.m_flags = self.m_components[0] | self.m_components[1]

        def traverse(self, callback: Any) -> None:
            callback.put("diffuse", self.diffuse, mi.ParamFlags.Differentiable)
            callback.put("specular", self.specular, mi.ParamFlags.Differentiable)
            callback.put("roughness", self.roughness, mi.ParamFlags.Differentiable)

        def parameters_changed(self, keys: Any) -> None:
            pass

        def _maps(self, si: Any, active: Any) -> tuple[Any, Any, Any]:
            return (
                self.diffuse.eval(si, active),
                self.specular.eval(si, active),
                self.roughness.eval_1(si, active),
            )

        def _pdf(self, wi: Any, wo: Any, f0: Any, roughness: Any) -> Any:
            return mixture_pdf(wi, wo, specular_share(f0, wi.z), dr.detach(alpha_of(roughness)))

        def sample(self, ctx: Any, si: Any, sample1: Any, sample2: Any, active: Any = True) -> tuple[Any, Any]:
            diffuse, f0, roughness = self._maps(si, active)
            glossy = sample1 < specular_share(f0, si.wi.z)
            mirrored = reflected_direction(si.wi, alpha_of(roughness), sample2)
            wo = dr.select(glossy, mirrored, mi.warp.square_to_cosine_hemisphere(sample2))
            bs = mi.BSDFSample3f()
            bs.wo = dr.detach(wo)
            bs.pdf = dr.detach(self._pdf(si.wi, bs.wo, f0, roughness))
            bs.eta = 1.0
            bs.sampled_component = dr.select(glossy, mi.UInt32(1), mi.UInt32(0))
            bs.sampled_type = dr.select(
                glossy, mi.UInt32(+mi.BSDFFlags.GlossyReflection), mi.UInt32(+mi.BSDFFlags.DiffuseReflection)
            )
            ok = active & (bs.pdf > 0)
            value = evaluate(si.wi, bs.wo, mi.Vector3f(0, 0, 1), diffuse, f0, roughness)
            return bs, dr.select(ok, value / dr.maximum(bs.pdf, 1e-12), 0)

        def eval(self, ctx: Any, si: Any, wo: Any, active: Any = True) -> Any:
            value = evaluate(si.wi, wo, mi.Vector3f(0, 0, 1), *self._maps(si, active))
            return dr.select(active, value, 0)

        def pdf(self, ctx: Any, si: Any, wo: Any, active: Any = True) -> Any:
            _, f0, roughness = self._maps(si, active)
            return dr.select(active, self._pdf(si.wi, wo, f0, roughness), 0)

        def eval_pdf(self, ctx: Any, si: Any, wo: Any, active: Any = True) -> tuple[Any, Any]:
            return self.eval(ctx, si, wo, active), self.pdf(ctx, si, wo, active)

        def to_string(self) -> str:
            return "Skin[]"

    mi.register_bsdf("skin", Skin)
    _registered.add(variant)
