"""Where the minimal pairs of a suite's tasks come from, and what is asked of them."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from chronocoder.settings import Settings

UNITS = {"next_token": "logit", "continuation": "nat", "sentence": "nat"}
"""The metrics of a task, and the units of what they compare."""
MetricChoice = Literal["auto", "next_token", "continuation", "sentence"]


class TaskSettings(Settings):
    """What all kinds of tasks share."""

    supplies_counterfactual: ClassVar[bool] = False
    metric: MetricChoice = Field(
        "auto",
        description="What is compared: `next_token`, the right and the wrong token after the prefix that both sentences"
        " share; `continuation`, the log-probability of what both sentences end with; `sentence`, that of the whole"
        " sentences; `auto`: by what the token ids show.",
    )
    language: str = Field("", description="Language of the pairs, by which results are grouped.")
    phenomenon: str = Field("", description="Phenomenon that the pairs are about, by which results are grouped.")


class NurseryTask(TaskSettings):
    """Minimal pairs from the suite's own grammar; the task's name is the grammar's."""

    supplies_counterfactual: ClassVar[bool] = True
    kind: Literal["nursery"] = Field(description="Generate the pairs.")
    pairs: PositiveInt = Field(300, description="Minimal pairs to generate.")
    seed: int = Field(2, description="Seed of the pairs.")


class BlimpTask(TaskSettings):
    """Minimal pairs from a JSONL file in the format of BLiMP (Warstadt et al. 2020)."""

    kind: Literal["blimp"] = Field(description="Read the pairs from a file.")
    path: str = Field(description="JSONL file with `sentence_good` and `sentence_bad` on each line.")
    limit: PositiveInt | None = Field(None, description="Use only the first so many lines.")


class PairsTask(TaskSettings):
    """Minimal pairs from a JSONL file of one's own, with or without counterfactual prefixes."""

    supplies_counterfactual: ClassVar[bool] = True
    kind: Literal["pairs"] = Field(description="Read the pairs from a file.")
    path: str = Field(
        description="JSONL file with `prefix`, `right` and `wrong` on each line, and where wanted `counterfactual` and"
        " `condition`. Texts are joined as they stand: `right` and `wrong` begin with their space."
    )
    limit: PositiveInt | None = Field(None, description="Use only the first so many lines.")


Task = Annotated[NurseryTask | BlimpTask | PairsTask, Field(discriminator="kind")]
