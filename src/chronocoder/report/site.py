"""The directory of a report while it is written: pages, figures, and the data that pages load when they need it."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain, count
from pathlib import Path
from typing import Any

import jinja2

from chronocoder.figures.chart import Chart

PACKAGE = "chronocoder.report"
PIXELS_PER_IN = 100


@dataclass(frozen=True)
class Placed:
    """A figure of a page.

    Attributes:
        stem: path of its files from the page, without the ending.
        title: what it shows.
        alt: what can be seen.
        width: in pixels.
        height: in pixels.
        choices: for what choice of each select of its group it is shown.
        note: what a reader has to know to read it; may be empty.
    """

    stem: str
    title: str
    alt: str
    width: int
    height: int
    choices: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class FigureGroup:
    """Figures of which a page shows those of one choice at a time; all of them where there is nothing to choose.

    Attributes:
        name: tells the group from the others of its page.
        figures: in order.
        levels: what is chosen, the label of a select each; as many as each figure has choices.
        shown: place of a figure of those that are shown first; negative ones count from the last.
    """

    name: str
    figures: Sequence[Placed]
    levels: tuple[str, ...] = ()
    shown: int = 0

    @property
    def first(self) -> tuple[str, ...]:
        """The choices that are made first."""
        return self.figures[self.shown].choices if self.figures else ()

    @property
    def options(self) -> list[list[str]]:
        """The choices of each level, in the order of the figures."""
        return [
            list(dict.fromkeys(figure.choices[level] for figure in self.figures)) for level in range(len(self.levels))
        ]


class Site:
    """A report's directory.

    `figures/<name>.{svg,pdf,csv}`, `data/<name>.js`, `static/`, and pages at its root.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._taken: set[str] = set()
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader(PACKAGE),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def place(self, name: str, chart: Chart, *choices: str, note: str = "") -> Placed:
        """Write a figure's files, and return what a page needs to show it.

        Args:
            name: path of its files below `figures`, made of slugs; a number is added if another figure has it, since
                slugs of names in other scripts may be alike.
            chart: the figure.
            choices: for what choice of each select of its group it is shown.
            note: what a reader has to know to read it.
        """
        numbered = chain([name], (f"{name}-{number}" for number in count(2)))
        free = next(one for one in numbered if one.lower() not in self._taken)
        self._taken.add(free.lower())
        stem = Path("figures") / free
        chart.write(self.directory / stem)
        width, height = (round(inches * PIXELS_PER_IN) for inches in chart.get_size_inches())
        return Placed(stem.as_posix(), chart.title, chart.alt, width, height, choices, note)

    def data(self, name: str, value: Any) -> None:
        """Write data that the scripts of pages load by its name: `chronocoder.load(name)` gives a promise of it.

        A script, since pages opened from disk may not fetch files; of ASCII alone, and without NaN.
        """
        path = self.directory / "data" / f"{name}.js"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
        path.write_text(f"chronocoder.put({json.dumps(name)},{text});\n", encoding="ascii")

    def page(self, name: str, **context: Any) -> None:
        """Write the page `<name>.html` from the template of the same name."""
        self.page_from(name, name, **context)

    def page_from(self, template: str, name: str, **context: Any) -> None:
        """Write a page from a template of another name."""
        text = self._templates.get_template(f"{template}.html.jinja").render(page=name, **context)
        (self.directory / f"{name}.html").write_text(text, encoding="utf-8")

    def add_static(self) -> None:
        """Copy style sheet and scripts."""
        target = self.directory / "static"
        target.mkdir(parents=True, exist_ok=True)
        for source in files(PACKAGE).joinpath("static").iterdir():
            (target / source.name).write_bytes(source.read_bytes())


def slug(*parts: str) -> str:
    """Return parts of a name as one that a file may have anywhere."""
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "-", part).strip("-.") for part in parts)
