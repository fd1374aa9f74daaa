"""HTML and SVG elements in which text from outside is always escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

WITHOUT_END = frozenset({"input"})
"""Elements that hold nothing and are not closed."""


class Markup(str):
    """Text that is markup already: made by `tag`, or a constant of ours."""

    __slots__ = ()


def tag(element: str, *children: str, **attributes: str | float | None) -> Markup:
    """Write an element; children that are not `Markup` are escaped, and so is every attribute.

    An underscore in an attribute's name stands for a hyphen, and one at its end is dropped
    (``class_``). An attribute of None is left out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_escaped(_value(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if element in WITHOUT_END:
        return Markup(f"<{element}{written}>")
    return Markup(f"<{element}{written}>{join(children)}</{element}>")


def join(parts: Iterable[str]) -> Markup:
    """Write parts one after another; those that are not `Markup` are escaped."""
    return Markup("".join(p if isinstance(p, Markup) else _escaped(p) for p in parts))


def _escaped(text: str) -> str:
    """Escape markup; half a surrogate pair, which no file can hold, becomes a question mark."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))


def _value(value: str | float) -> str:
    """Write a coordinate to a hundredth of a pixel, and other values as they are."""
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
