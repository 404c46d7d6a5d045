"""How far crosscoders agree that differ in nothing but their seed."""

import xarray as xr

from chronocoder.figures.chart import MARKERS, PALETTE, Chart, plain, styled
from chronocoder.stores import names
from chronocoder.wording import counted, decimal, in_words

PANELS = {
    "indirect_effect_spearman": "Spearman’s ρ of IE",
    "relative_indirect_effect_difference": "Mean |difference| of RelIE",
    "class_kappa": "Cohen’s κ of classes",
}
ROW_IN, MARGIN_IN, WIDTH_IN = 0.3, 1.2, 9.6


@styled
def draw_seeds(matches: xr.Dataset) -> Chart:
    """Draw how stable effects and classes are between seeds, with a row for each task.

    Args:
        matches: what `seeds.zarr` holds, dims (seed, cosine_at_least, task, checkpoint); means over seeds and
            checkpoints are drawn.
    """
    means = matches[list(PANELS)].mean(["seed", "checkpoint"])
    data = means.to_dataframe()[list(PANELS)].reset_index().sort_values("cosine_at_least", kind="stable")
    tasks = names(matches, "task")
    spearman = data["indirect_effect_spearman"]
    alt = (
        f"Agreement between seeds on {counted(len(tasks), 'task')}: Spearman’s correlation of effects lies between"
        f" {decimal(spearman.min())} and {decimal(spearman.max())}."
    )
    title = f"Agreement between seeds, {matches.attrs['comparison']} · {matches.attrs['variant']}"
    chart = Chart(title, data, alt, WIDTH_IN, MARGIN_IN + ROW_IN * len(tasks))
    panels = chart.subplots(1, len(PANELS), sharey=True)
    for axes, (name, label) in zip(panels, PANELS.items(), strict=True):
        for number, (least, of_least) in enumerate(data.groupby("cosine_at_least")):
            axes.plot(
                of_least[name],
                [tasks.index(task) for task in of_least["task"]],
                label=f"cosine ≥ {least:g}",
                color=PALETTE[number % len(PALETTE)],
                marker=MARKERS[number % len(MARKERS)],
                linestyle="none",
            )
        axes.set(xlabel=label, xlim=(min(0.0, data[name].min()) - 0.03, 1.03))
    panels[0].set_yticks(range(len(tasks)), [plain(in_words(task)) for task in tasks])
    panels[0].set_ylim(len(tasks) - 0.4, -0.6)
    handles, labels = panels[0].get_legend_handles_labels()
    chart.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    return chart
