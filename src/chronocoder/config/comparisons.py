"""The checkpoints that crosscoders are trained on."""

from pydantic import Field

from chronocoder.labels import Control, control_of, is_examined
from chronocoder.settings import CheckpointName, Name, Settings, Site


class Comparison(Settings):
    """The checkpoints that one crosscoder is trained on."""

    checkpoints: list[CheckpointName] = Field(
        min_length=1,
        description="Revisions in order of training. As a control, one revision twice or more often, or beside it"
        " `revision@suite`, that of a suite with another seed at the same step. A single one makes a dictionary of its"
        " own.",
    )
    site: Site | None = Field(None, description="Site of this comparison, where it is not the suite's.")
    variants: list[Name] | None = Field(None, description="Crosscoder variants to train; all where not given.")
    baseline: list[Name] | None = Field(
        None,
        description="Comparisons of a single checkpoint, one for each checkpoint here in order: their dictionaries are"
        " matched afterwards, to show what training one for all of them is worth.",
    )
    why: str = Field("", description="The reason for this choice, kept in `comparisons.yaml`.")

    @property
    def control(self) -> Control:
        """Which control it is: `identity`, `pretraining seed`, or none."""
        return control_of(self.checkpoints)

    @property
    def single(self) -> bool:
        """Whether it is of one checkpoint alone."""
        return len(self.checkpoints) == 1

    @property
    def examined(self) -> bool:
        """Whether it is neither a control nor single: its features are ablated, matched between seeds and reported."""
        return is_examined(self.checkpoints)
