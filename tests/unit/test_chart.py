"""The files of a figure."""

from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from matplotlib import rcParams

from chronocoder.figures.chart import LINES, MARKERS, PALETTE, STYLE, Chart, plain, styled
from chronocoder.report.site import FigureGroup, Placed, Site, slug
from chronocoder.terminal import printable

SVG = "{http://www.w3.org/2000/svg}"


@styled
def rising(data: pd.DataFrame) -> Chart:
    chart = Chart("Rising <i>", data, "A line that rises.")
    chart.subplots().plot(data["step"], data["accuracy"])
    return chart


@pytest.fixture
def data() -> pd.DataFrame:
    return pd.DataFrame({"step": [1, 2], "accuracy": [0.25, 0.5]})


def test_files_hold_the_figure_as_vectors_and_its_numbers(data: pd.DataFrame, tmp_path: Path) -> None:
    rising(data).write(tmp_path / "some" / "rising.v1")
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == [
        f"rising.v1.{ending}" for ending in ("csv", "pdf", "svg")
    ]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "some" / "rising.v1.csv"), data)
    assert "<svg" in (tmp_path / "some" / "rising.v1.svg").read_text(encoding="utf-8")
    assert (tmp_path / "some" / "rising.v1.pdf").read_bytes().startswith(b"%PDF")


def test_same_figure_gives_the_same_bytes(data: pd.DataFrame, tmp_path: Path) -> None:
    for name in ("one", "other"):
        rising(data).write(tmp_path / name)
    for ending in (".svg", ".pdf", ".csv"):
        assert (tmp_path / f"one{ending}").read_bytes() == (tmp_path / f"other{ending}").read_bytes()


def test_a_notebook_shows_what_the_file_holds(data: pd.DataFrame, tmp_path: Path) -> None:
    rising(data).write(tmp_path / "rising")
    assert rising(data)._repr_svg_() == (tmp_path / "rising.svg").read_text(encoding="utf-8")


def test_style_is_that_of_charts_alone(data: pd.DataFrame) -> None:
    before = rcParams["axes.grid"]
    assert rising(data).axes[0].xaxis.get_gridlines()[0].get_visible() and STYLE["axes.grid"] != before
    assert rcParams["axes.grid"] == before
    assert len(PALETTE) == len(MARKERS) == len(LINES)


def test_a_site_says_where_a_figure_is(data: pd.DataFrame, tmp_path: Path) -> None:
    placed = Site(tmp_path).place("a/rising", rising(data), "one", note="rises")
    assert placed == Placed("figures/a/rising", "Rising <i>", "A line that rises.", 640, 400, ("one",), "rises")
    assert (tmp_path / "figures" / "a" / "rising.svg").exists()
    assert FigureGroup("group", [placed, placed], ("Which",)).options == [["one"]]


def test_figures_whose_names_have_one_slug_have_files_of_their_own(data: pd.DataFrame, tmp_path: Path) -> None:
    site = Site(tmp_path)
    placed = [
        site.place(f"a/{slug('largest', name)}", rising(data)) for name in ("主谓一致", "否定极性", "near", "Near")
    ]
    assert [figure.stem for figure in placed] == [
        f"figures/a/{name}" for name in ("largest-", "largest--2", "largest-near", "largest-Near-2")
    ]


def test_data_are_a_script_of_ascii_that_closes_no_element(tmp_path: Path) -> None:
    Site(tmp_path).data("run/1", ["é\u2028</script>"])
    assert (tmp_path / "data" / "run" / "1.js").read_text(encoding="ascii") == (
        'chronocoder.put("run/1",["\\u00e9\\u2028</script>"]);\n'
    )
    with pytest.raises(ValueError, match="Out of range float"):
        Site(tmp_path).data("bad", float("nan"))


def test_slugs_are_names_of_files_anywhere() -> None:
    assert slug("a b/..", "é:x", "residual.2") == "a-b-x-residual.2"


@styled
def labelled_with(text: str) -> Chart:
    chart = Chart("Labelled", pd.DataFrame(), "A label.")
    chart.subplots().set_xlabel(plain(text))
    return chart


@pytest.mark.parametrize("text", [r"$\frac{$", "$x$ costs $2", "<b>&amp;\"'", "\x1b[2J\x00"])
def test_any_text_is_drawn_as_it_is(text: str, tmp_path: Path) -> None:
    labelled_with(text).write(tmp_path / "chart")
    drawn = [element.text for element in ElementTree.parse(tmp_path / "chart.svg").iter(f"{SVG}text")]
    assert printable(text) in drawn
