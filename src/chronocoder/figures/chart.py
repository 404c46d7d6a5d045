"""What all figures share: type, colours, the numbers behind them, and the files they are written to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from io import StringIO
from pathlib import Path
from typing import Any, ParamSpec

import pandas as pd
from cycler import cycler
from matplotlib import rc_context
from matplotlib.figure import Figure

from chronocoder.figures.font import font_families
from chronocoder.terminal import printable

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#B58900", "#222222", "#8C6BB1", "#7F7F7F")
"""Okabe and Ito's colours, told apart with any colour vision; the yellow is darkened for white paper."""
COLOUR_MAP = "cividis"
"""Of growing lightness, so that it survives greyscale; values with a sign get limits of equal size about zero."""
INK, QUIET, GRID = "#1F2933", "#52606D", "#D9DEE4"
WIDTH_IN, HEIGHT_IN = 6.4, 4.0
MANY_MARKS = 1000
"""Above so many, marks are drawn as pixels (`rasterized=True`): a file of vectors would be slow to open."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), (0, (3, 3, 1, 3)))
STYLE: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.prop_cycle": cycler(color=PALETTE) + cycler(marker=MARKERS) + cycler(linestyle=LINES),
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "image.cmap": COLOUR_MAP,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "chronocoder",
    "pdf.fonttype": 42,
}
_Arguments = ParamSpec("_Arguments")


class Chart(Figure):
    """A matplotlib figure that carries the numbers it shows.

    Attributes:
        title: what it shows, in a few words; a page puts it above the figure, which itself has no title.
        alt: what can be seen, in a sentence or two, for readers who cannot see it.
        data: the numbers, a row for each mark, with tidy columns whose names say what they are.
    """

    def __init__(
        self, title: str, data: pd.DataFrame, alt: str, width_in: float = WIDTH_IN, height_in: float = HEIGHT_IN
    ) -> None:
        super().__init__(figsize=(width_in, height_in), layout="constrained")
        self.title, self.data, self.alt = title, data, alt

    def write(self, stem: Path) -> None:
        """Write the figure as SVG and PDF, and its numbers as CSV, beside each other; the same figure, the same bytes.

        Args:
            stem: their path without the ending.
        """
        stem.parent.mkdir(parents=True, exist_ok=True)
        with in_style(), self._laid_out():
            self.savefig(stem.with_name(f"{stem.name}.svg"), metadata={"Date": None, "Title": self.title})
            self.savefig(stem.with_name(f"{stem.name}.pdf"), metadata={"CreationDate": None, "Title": self.title})
        self.data.to_csv(stem.with_name(f"{stem.name}.csv"), index=False)

    def _repr_svg_(self) -> str:
        """Return the figure as a notebook shows it where a cell ends with it."""
        file = StringIO()
        with in_style(), self._laid_out():
            self.savefig(file, format="svg", metadata={"Date": None, "Title": self.title})
        return file.getvalue()

    @contextmanager
    def _laid_out(self) -> Iterator[None]:
        """Lay the figure out once for all files: it takes as long as drawing it."""
        engine = self.get_layout_engine()
        self.draw_without_rendering()
        self.set_layout_engine(None)  # even an engine that does nothing would have it drawn twice for each file
        yield
        self.set_layout_engine(engine)


@contextmanager
def in_style() -> Iterator[None]:
    """Draw in the style of all charts."""
    with rc_context({**STYLE, "font.family": font_families()}):
        yield


def styled(draw: Callable[_Arguments, Chart]) -> Callable[_Arguments, Chart]:
    """Decorate a function that draws a chart, so that it draws in the style of all."""

    @wraps(draw)
    def drawn(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Chart:
        with in_style():
            return draw(*args, **kwargs)

    return drawn


def plain(text: str) -> str:
    """Return text that matplotlib draws as it is: it takes what is between two dollar signs for mathematics.

    Tokens and names that others have given may hold them, or characters that no SVG file may.
    """
    return printable(text).replace("$", r"\$")
