"""Plain aligned tables and bars: the same on a terminal, in a pipe and in a golden file."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns padded to their widest cell; the first `left` and the last column are aligned to the left."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    lines = []
    for row in cells:
        padded = [
            cell.ljust(width) if k < left or k == len(row) - 1 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def bar(value: float, scale: float, width: int = 20) -> str:
    """A bar of up to `width` cells for `value` in [0, scale]."""
    return "█" * round(width * value / scale) if scale > 0 else ""


def decimals(value: float, form: str = ".4f") -> str:
    """Four decimals, and no minus before a zero."""
    return format(round(value, 4) + 0.0, form)
