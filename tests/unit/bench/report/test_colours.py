"""The style sheet's colours: legible in both schemes, and apart for every kind of eye."""

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest

CSS = files("embellama.bench.report").joinpath("page.css").read_text(encoding="utf-8")
LIGHT, DARK, PRINT = (
    dict(re.findall(r"--(\w+): (#\w{6})", block))
    for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
)

# Linear RGB as seen with the sense for one colour missing.
# Source: Machado, Oliveira, Fernandes (2009), severity 1: protan, deutan, tritan.
EYES = {
    "all": np.eye(3),
    "protan": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deutan": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritan": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}
# Source: Ottosson (2020), "A perceptual color space for image processing".
TO_CONES = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
TO_LAB = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]


def linear(colour):
    """Return linear red, green and blue of a hexadecimal sRGB colour."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """Return the contrast ratio. Source: WCAG 2.2, definition of contrast ratio."""
    lights = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) + 0.05 for c in (one, other))
    return lights[1] / lights[0]


def oklab(colour, eye):
    seen = np.clip(np.array(EYES[eye]) @ linear(colour), 0, 1)
    return np.array(TO_LAB) @ np.cbrt(np.array(TO_CONES) @ seen)


@pytest.mark.parametrize("scheme", [LIGHT, DARK, PRINT], ids=["light", "dark", "print"])
def test_text_has_contrast_aa_on_both_backgrounds(scheme):
    for text in ("text", "muted"):
        for ground in ("page", "card"):
            assert contrast(scheme[text], scheme[ground]) >= 4.5


@pytest.mark.parametrize("scheme", [LIGHT, DARK, PRINT], ids=["light", "dark", "print"])
def test_marks_of_types_stand_out_from_the_background(scheme):
    assert min(contrast(scheme[f"t{i}"], scheme["page"]) for i in range(8)) >= 2.99


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_types_are_told_apart_by_every_eye(scheme, eye):
    pairs = combinations([oklab(scheme[f"t{i}"], eye) for i in range(8)], 2)
    assert min(np.linalg.norm(one - other) for one, other in pairs) >= 0.1
