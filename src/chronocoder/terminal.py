"""Text for a terminal: tables of plain lines, numbers with decimal prefixes, and no text that steers the terminal."""

from collections.abc import Sequence

DECIMALS = ("", "k", "M", "G", "T", "P", "E", "Z")


def shortened(value: float, unit: str) -> str:
    """Return a number with three digits and a decimal prefix, for instance `1.25 GB`; a dash for nothing."""
    if not value:
        return "-"
    power = 0
    while value >= 999.5 and power < len(DECIMALS) - 1:
        value, power = value / 1000, power + 1
    digits = max(0, 3 - len(str(int(value))))
    return f"{value:.{digits}f} {DECIMALS[power]}{unit}"


def table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows below headings and a title, in columns as wide as they need to be; cells are made `printable`."""
    cells = [[printable(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join([title, *(f"  {line}".rstrip() for line in lines)])


def printable(text: str) -> str:
    """Return text with whatever is no visible character written as an escape: tokens may hold control sequences."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
