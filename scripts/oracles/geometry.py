"""Angles, radii and altitudes from coordinates."""

from __future__ import annotations

import cmath
import math
import re
from fractions import Fraction

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, Oracle, differs

_THOUSANDTH, _HUNDREDTH = 0.00051, 0.0051
"""A number rounded to three or two decimals is nearer than this."""


def advanced_geometry(item: Item) -> str | None:
    question = item["question"].split("For all geometry")[0]
    (ax, ay), (bx, by), (cx, cy) = ([int(n) for n in pair] for pair in re.findall(r"\((-?\d+), (-?\d+)\)", question))
    a, b, c = complex(ax, ay), complex(bx, by), complex(cx, cy)
    given = [float(text) for text in re.findall(r"-?\d+\.?\d*", item["answer"])]
    if "orthocenter" in question:
        # (H - A)·(C - B) = 0 and (H - B)·(C - A) = 0, by Cramer's rule.
        p, q = (cx - bx, cy - by), (cx - ax, cy - ay)
        d = p[0] * q[1] - p[1] * q[0]
        e, f = p[0] * ax + p[1] * ay, q[0] * bx + q[1] * by
        right = [(e * q[1] - f * p[1]) / d, (p[0] * f - q[0] * e) / d]
        tolerance = _THOUSANDTH
    elif "incircle" in question or "inradius" in question:
        twice_area = abs(((b - a).conjugate() * (c - a)).imag)
        right, tolerance = [twice_area / (abs(a - b) + abs(b - c) + abs(c - a))], _THOUSANDTH
    else:
        right, tolerance = [abs(math.degrees(cmath.phase((a - b) / (c - b))))], _HUNDREDTH
    near = len(given) == len(right) and all(abs(g - r) < tolerance for g, r in zip(given, right, strict=True))
    return None if near else f"it is {right}"


def simple_geometry(item: Item) -> str | None:
    """By the sum of the angles, whether or not there is such a convex polygon."""
    given = [Fraction(text) for text in re.findall(r"(\d+\.\d+)°", item["question"])]
    return differs(item, 180 * (len(given) - 1) - sum(given))


ORACLES: dict[str, Oracle] = {"advanced_geometry": advanced_geometry, "simple_geometry": simple_geometry}
