"""Labels beside circles, placed so that they cover neither each other nor the circles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))
DISTANCES = (4.0, 14.0, 26.0, 40.0, 56.0, 74.0)
OUTSIDE, ON_A_LABEL, ON_A_CIRCLE, ON_A_LINE, AWAY = 1000.0, 100.0, 1.0, 0.4, 3.0
"""What a place costs, for each square pixel of overlap and each pixel of distance."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def shared(self, other: Box) -> float:
        """Return the area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    @property
    def area(self) -> float:
        """Return width times height."""
        return (self.right - self.left) * (self.bottom - self.top)


@dataclass(frozen=True, slots=True)
class Circle:
    """A mark that wants a label of a width and height."""

    x: float
    y: float
    radius: float
    width: float
    height: float

    @property
    def box(self) -> Box:
        """Return the square around it."""
        r = self.radius
        return Box(self.x - r, self.y - r, self.x + r, self.y + r)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a label goes, and how far its circle is."""

    box: Box
    distance: float


def place_labels(
    circles: Sequence[Circle],
    bounds: Box,
    *,
    taken: Sequence[Box] = (),
    lines: Sequence[Box] = (),
) -> list[Place]:
    """Find a place for every label, one after another, each the cheapest that is left.

    Args:
        circles: The marks, in the order of their labels.
        bounds: What labels have to stay in.
        taken: Where something is written already.
        lines: What labels had better not cross.
    """
    placed: list[Place] = []
    for circle in circles:
        used = [*taken, *(place.box for place in placed)]
        candidates = [
            _candidate(circle, direction, distance)
            for distance in DISTANCES
            for direction in DIRECTIONS
        ]
        placed.append(
            min(
                candidates,
                key=partial(_cost, circles=circles, used=used, lines=lines, bounds=bounds),
            )
        )
    return placed


def _candidate(circle: Circle, direction: tuple[int, int], distance: float) -> Place:
    across, down = direction
    reach = (circle.radius + distance) * (0.75 if across and down else 1)
    x = circle.x + across * (reach + circle.width / 2)
    y = circle.y + down * (reach + circle.height / 2)
    half_width, half_height = circle.width / 2, circle.height / 2
    return Place(Box(x - half_width, y - half_height, x + half_width, y + half_height), distance)


def _cost(
    place: Place,
    *,
    circles: Sequence[Circle],
    used: Sequence[Box],
    lines: Sequence[Box],
    bounds: Box,
) -> float:
    box = place.box
    return (
        OUTSIDE * (box.area - box.shared(bounds))
        + ON_A_LABEL * sum(box.shared(other) for other in used)
        + ON_A_CIRCLE * sum(box.shared(circle.box) for circle in circles)
        + ON_A_LINE * sum(box.shared(thin) for thin in lines)
        + AWAY * place.distance
    )
