"""How different two colours look to people with and without colour blindness."""

from __future__ import annotations

import numpy as np

SEEN_BY = {
    "everybody else": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
"""Matrices on linear RGB, severity 1 (Machado, Oliveira and Fernandes, 2009, doi 10.1109/TVCG.2009.113)."""

_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = np.array([0.9505, 1.0, 1.089])


def difference_as_seen(one: str, other: str) -> float:
    """Return the smallest distance of two colours, as #rrggbb, in CIELAB over all of `SEEN_BY`; 2 is just noticeable."""
    return min(
        float(np.linalg.norm(_lab(matrix @ _linear(one)) - _lab(matrix @ _linear(other))))
        for matrix in SEEN_BY.values()
    )


def _linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    x = _TO_XYZ @ np.clip(linear, 0, 1) / _WHITE
    x, y, z = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
