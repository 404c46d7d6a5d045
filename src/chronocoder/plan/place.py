"""A job among the settings that its cost follows from."""

from collections import Counter
from typing import NamedTuple

from chronocoder.config import AttributionSettings, Experiment, Suite
from chronocoder.plan.changes import expected_l0
from chronocoder.plan.compute import Measuring, Prompts
from chronocoder.plan.disk import token_bytes
from chronocoder.plan.estimator import chosen_estimator, exact_hours
from chronocoder.plan.hardware import Work
from chronocoder.plan.jobs import Job
from chronocoder.plan.measured import NOTHING, Measured
from chronocoder.plan.memory import Memory, held_bytes, loading_bytes
from chronocoder.plan.models import CrosscoderShape, ModelShape, crosscoder_shape
from chronocoder.plan.sizes import TaskTexts, examples_of, expected_texts


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
        measured: what results tell already.
    """

    experiment: Experiment
    shape: ModelShape
    job: Job
    accelerated: bool
    measured: Measured = NOTHING

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
    def examples(self) -> list[int]:
        """The pairs of each of the job's tasks."""
        return [examples_of(self.job.suite, self.suite, task) for task in self.job.tasks]

    @property
    def texts(self) -> list[TaskTexts]:
        """What is read of a pair of each of the job's tasks, measured or expected."""
        measured, suite = self.measured.texts, self.job.suite
        return [measured.get((suite, task), expected_texts(self.suite.tasks[task])) for task in self.job.tasks]

    @property
    def prompts(self) -> list[Prompts]:
        """What is read of each of the job's tasks."""
        return [Prompts.of(pairs, texts) for pairs, texts in zip(self.examples, self.texts, strict=True)]

    @property
    def length(self) -> float:
        """Tokens of the longest texts, which memory is counted for."""
        return max(texts.length for texts in self.texts)

    @property
    def l0(self) -> float:
        """Active latents a token of the job's crosscoder, measured or expected."""
        job = self.job
        expected = expected_l0(self.experiment.variants[job.variant])
        return self.measured.l0.get((job.suite, job.comparison, job.variant), expected)

    @property
    def exact_hours(self) -> float:
        """Hours that exact effects on all tasks of the suite take, by which the estimator is chosen."""
        settings, variant = self.experiment.attribution, self.experiment.variants[self.job.variant]
        of_suite = self._replace(job=self.job._replace(tasks=tuple(self.suite.tasks))).prompts
        return sum(
            tasks * exact_hours(settings, variant, self.shape, self.crosscoder, prompts, self.site)
            for prompts, tasks in Counter(of_suite).items()
        )

    @property
    def attribution(self) -> AttributionSettings:
        """The settings of attribution, with the estimator that the job's crosscoder will be measured by."""
        settings = self.experiment.attribution
        return settings.model_copy(update={"estimator": chosen_estimator(settings, self.exact_hours)})

    @property
    def measurings(self) -> list[Measuring]:
        """The effects that the job measures, or checks, on each of its tasks."""
        settings, shape, crosscoder = self.attribution, self.shape, self.crosscoder
        return [Measuring(settings, shape, crosscoder, prompts, self.site, self.l0) for prompts in self.prompts]

    @property
    def streams(self) -> bool:
        """Whether trainings run the models themselves."""
        return self.experiment.training.activations == "streaming"

    @property
    def splits(self) -> list[str]:
        """The splits that are harvested."""
        return ["validation"] if self.streams else ["train", "validation"]

    def held(self, models: int) -> float:
        """Return the bytes of some loaded models on one device."""
        return held_bytes(self.shape, models, self.accelerated)

    def loading(self, models: int, with_crosscoder: bool = False) -> float:
        """Return the main memory that loading models takes at its peak, and before them the crosscoder if so wished."""
        return loading_bytes(self.shape, models, self.accelerated, self.crosscoder if with_crosscoder else None)

    def rows_bytes(self, rows: float) -> float:
        """Return the bytes of stored activations of a comparison's checkpoints."""
        return rows * self.crosscoder.checkpoints * token_bytes(self.crosscoder.d_model, self.experiment.harvest.dtype)
