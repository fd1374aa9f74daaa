"""Plain text for people: columns that line up, sizes and counts in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import typer


def show_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: str = "") -> None:
    """Write rows under headings; the columns whose heading is in ``right`` end flush."""
    table = [tuple(headings), *(tuple(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    flush = [heading in right.split() for heading in headings]
    for row in table:
        cells = [
            cell.rjust(width) if end else cell.ljust(width)
            for cell, width, end in zip(row, widths, flush, strict=True)
        ]
        typer.echo("  ".join(cells).rstrip())


def show_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Write names and values, one pair a line; a value of None is left out."""
    shown = [(name, str(value)) for name, value in fields if value is not None]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        typer.echo(f"{name:<{width}}  {value}")


def in_units(size_bytes: int) -> str:
    """Write a size with a fitting decimal unit."""
    size = float(size_bytes)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def tensor_summary(tensor_types: Mapping[str, int]) -> str:
    """Write how many tensors have which type, the most frequent first."""
    ordered = sorted(tensor_types.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} {kind}" for kind, count in ordered)
