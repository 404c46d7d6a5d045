"""A job among the settings that its cost follows from."""

from typing import NamedTuple

from chronocoder.config import Experiment, Suite
from chronocoder.plan.compute import Prompts
from chronocoder.plan.disk import token_bytes
from chronocoder.plan.hardware import Work
from chronocoder.plan.jobs import Job
from chronocoder.plan.memory import Memory, loading_bytes
from chronocoder.plan.models import CrosscoderShape, ModelShape, crosscoder_shape
from chronocoder.plan.sizes import PREFIX_TOKENS, examples_of


class Cost(NamedTuple):
    """The cost of a job.

    Attributes:
        work: what it computes and moves, over all its processes.
        memory: the peak of one of its processes.
    """

    work: Work
    memory: Memory


class Place(NamedTuple):
    """A job among the settings it needs.

    Attributes:
        experiment: the configuration.
        shape: of the models of the job's suite.
        job: the job.
        accelerated: whether its tensors lie on an accelerator.
    """

    experiment: Experiment
    shape: ModelShape
    job: Job
    accelerated: bool

    @property
    def suite(self) -> Suite:
        """The job's suite."""
        return self.experiment.suites[self.job.suite]

    @property
    def site(self) -> str:
        """The site of the job's comparison."""
        return self.suite.site_of(self.job.comparison)

    @property
    def crosscoder(self) -> CrosscoderShape:
        """The sizes of the job's crosscoder."""
        job = self.job
        return crosscoder_shape(self.experiment, job.suite, job.comparison, job.variant, self.shape)

    @property
    def prompts(self) -> list[Prompts]:
        """The prefixes of each of the job's tasks."""
        return [Prompts(examples_of(self.job.suite, self.suite, task), PREFIX_TOKENS) for task in self.job.tasks]

    @property
    def streams(self) -> bool:
        """Whether trainings run the models themselves."""
        return self.experiment.training.activations == "streaming"

    @property
    def splits(self) -> list[str]:
        """The splits that are harvested."""
        return ["validation"] if self.streams else ["train", "validation"]

    def loading(self, models: int, with_crosscoder: bool = False) -> float:
        """Return the main memory that loading models takes at its peak, and before them the crosscoder if so wished."""
        return loading_bytes(self.shape, models, self.accelerated, self.crosscoder if with_crosscoder else None)

    def rows_bytes(self, rows: float) -> float:
        """Return the bytes of stored activations of a comparison's checkpoints."""
        return rows * self.crosscoder.checkpoints * token_bytes(self.shape.d_model, self.experiment.harvest.dtype)
