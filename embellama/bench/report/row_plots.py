"""Plots with a row for every type: its name at the left, its figures at the right."""

from __future__ import annotations

from dataclasses import dataclass

from embellama.bench.report.markup import Markup, join, tag
from embellama.bench.report.plots import NARROW, text

TOP, BOTTOM = 26, 46


@dataclass(frozen=True, slots=True)
class Rows:
    """The layout of a plot in rows, in pixels.

    Attributes:
        width: Of the whole plot.
        n_rows: How many types.
        row_height: Of one of them.
    """

    width: int
    n_rows: int
    row_height: int

    @property
    def left(self) -> float:
        """Where the plotted part begins."""
        return 74 if self.narrow else 92

    @property
    def right(self) -> float:
        """Where it ends and the figures begin."""
        return self.width - (64 if self.narrow else 150)

    @property
    def narrow(self) -> bool:
        """Whether only one figure has room."""
        return self.width <= NARROW

    @property
    def bottom(self) -> float:
        """Return the y of the axis."""
        return TOP + self.n_rows * self.row_height

    @property
    def height(self) -> float:
        """Return the height of the whole plot."""
        return self.bottom + BOTTOM

    def top_of(self, row: int) -> float:
        """Return the y where a row begins."""
        return TOP + row * self.row_height

    def names(self, row: int, file_type: str, colour: str, *, figures: str) -> Markup:
        """Write a row's type with a patch of its colour, and its figures."""
        middle = self.top_of(row) + self.row_height / 2
        patch = tag("rect", x=0, y=middle - 5, width=10, height=10, rx=2, class_=f"patch {colour}")
        return join(
            [
                patch,
                text(15, middle + 4, file_type, class_="label name"),
                text(self.width - 2, middle + 4, figures, class_="label end"),
            ]
        )

    def titles(self, axis: str, *, figures: str) -> Markup:
        """Write the axis's title below, and that of the figures above them."""
        return join(
            [
                text(self.right, self.height - 8, axis, class_="axis end"),
                text(self.width - 2, 14, figures, class_="axis end"),
            ]
        )
