"""The font of figures, in a form that is quickly embedded in a PDF file."""

import logging
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont
from matplotlib.font_manager import findfont, fontManager

WHOLE = "DejaVu Sans"
PART = f"{WHOLE} of figures"
"""The characters of `WHOLE` that figures use, without tables that each embedding reads in vain."""
CHARACTERS = (
    range(0x20, 0x250),  # Latin
    range(0x370, 0x530),  # Greek and Cyrillic
    range(0x2010, 0x2060),  # dashes, quotation marks
    range(0x2190, 0x2300),  # arrows, operators
    range(0x25A0, 0x2720),  # shapes, ticks
)
NAMES = (1, 16)
"""Entries of a font's table of names that hold its family."""


@cache
def font_families() -> list[str]:
    """Return the families that a figure's texts are set in: what the first one lacks comes from the second."""
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every font in every PDF file
    font = TTFont(findfont(WHOLE), recalcTimestamp=False)
    subsetter = Subsetter(Options(layout_features=[], drop_tables=["FFTM", "GDEF", "GPOS", "GSUB", "MATH"]))
    subsetter.populate(unicodes=[code for characters in CHARACTERS for code in characters])
    subsetter.subset(font)
    for entry in font["name"].names:
        if entry.nameID in NAMES:
            entry.string = PART
    path = Path(_directory().name) / "font.ttf"
    font.save(path)
    fontManager.addfont(path)
    return [PART, WHOLE, "sans-serif"]


@cache
def _directory() -> TemporaryDirectory[str]:
    """Return a directory that is there as long as the process."""
    return TemporaryDirectory(prefix="chronocoder")
