"""All result paths, made in one place.

The braces are wildcards: `str.format` fills them in, and Snakemake reads them as they are.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Path patterns below one results directory.

    Attributes:
        root: the results directory.
    """

    root: str

    @property
    def suite(self) -> str:
        """Everything about one pretraining run."""
        return f"{self.root}/{{suite}}"

    @property
    def tokenizer(self) -> str:
        """The tokenizer of a suite: trained here, or that of its checkpoints."""
        return f"{self.suite}/tokenizer"

    @property
    def checkpoint(self) -> str:
        """A Hugging Face directory, for suites that are trained here or downloaded."""
        return f"{self.suite}/checkpoints/{{revision}}"

    @property
    def checked(self) -> str:
        """What a checkpoint is that reads a suite's tokens, once it has been found to share their tokenizer."""
        return f"{self.suite}/checked/{{revision}}.yaml"

    @property
    def lock(self) -> str:
        """The commits that revisions on the hub were resolved to."""
        return f"{self.suite}/lock.yaml"

    @property
    def corpus(self) -> str:
        """Token ids of one split."""
        return f"{self.suite}/corpus/{{split}}.zarr"

    @property
    def corpus_state(self) -> str:
        """What is written of the splits, while they are unfinished."""
        return f"{self.suite}/corpus/state"

    @property
    def task(self) -> str:
        """Tokenised minimal pairs."""
        return f"{self.suite}/tasks/{{task}}.zarr"

    @property
    def task_behaviour(self) -> str:
        """Scores of every checkpoint on one task."""
        return f"{self.suite}/behaviour/{{task}}.zarr"

    @property
    def behaviour(self) -> str:
        """Accuracy of every checkpoint on every task."""
        return f"{self.suite}/behaviour.zarr"

    @property
    def similarity(self) -> str:
        """Similarity of every two checkpoints' activations."""
        return f"{self.suite}/similarity.zarr"

    @property
    def comparisons(self) -> str:
        """What the crosscoders are trained on, and why."""
        return f"{self.suite}/comparisons.yaml"

    @property
    def choice(self) -> str:
        """The curves that comparisons were chosen from, and the changes found in them."""
        return f"{self.suite}/choice.zarr"

    @property
    def checkpoint_scan(self) -> str:
        """A cheap look at one checkpoint: some pairs of every task, and how alike some tokens are."""
        return f"{self.suite}/scan/{{revision}}.zarr"

    @property
    def scan(self) -> str:
        """The same of every checkpoint: accuracy, and similarity of every two."""
        return f"{self.suite}/scan.zarr"

    @property
    def activations(self) -> str:
        """Activations of one checkpoint at one site on one split."""
        return f"{self.suite}/activations/{{site}}/{{revision}}/{{split}}.zarr"

    @property
    def run(self) -> str:
        """Everything about one trained crosscoder."""
        return f"{self.suite}/{{comparison}}/{{variant}}/seed{{seed}}"

    @property
    def crosscoder(self) -> str:
        """A crosscoder: model.safetensors and config.json."""
        return f"{self.run}/crosscoder"

    @property
    def training(self) -> str:
        """Losses and metrics over the training steps."""
        return f"{self.run}/training.zarr"

    @property
    def training_state(self) -> str:
        """The saved state of a training, while it is unfinished."""
        return f"{self.run}/training_state"

    @property
    def evaluation(self) -> str:
        """Quality of a crosscoder on the validation split."""
        return f"{self.run}/evaluation.zarr"

    @property
    def own_codes(self) -> str:
        """What makes the codes that the activations of a single checkpoint tell."""
        return f"{self.run}/own_codes.zarr"

    @property
    def attribution(self) -> str:
        """Effects of every feature on one task at every checkpoint."""
        return f"{self.run}/attribution/{{task}}.zarr"

    @property
    def ablation(self) -> str:
        """Exact effects of the features that matter most on one task."""
        return f"{self.run}/ablation/{{task}}.zarr"

    @property
    def relie(self) -> str:
        """Effects of every feature on every task at every checkpoint."""
        return f"{self.run}/relie.zarr"

    @property
    def features(self) -> str:
        """Top-activating examples of the features that matter."""
        return f"{self.run}/features.zarr"

    @property
    def consolidation(self) -> str:
        """Overlap of effects between languages."""
        return f"{self.run}/consolidation.zarr"

    @property
    def baseline(self) -> str:
        """What the joint dictionary is worth, beside dictionaries of single checkpoints matched afterwards."""
        return f"{self.run}/baseline.zarr"

    @property
    def successors(self) -> str:
        """Features matched with those of the comparisons that begin where theirs ends."""
        return f"{self.run}/successors.zarr"

    @property
    def tuning(self) -> str:
        """What copies of one checkpoint, tuned on one task, make of every task."""
        return f"{self.suite}/taskspace/tunings/{{revision}}/seed{{tuning_seed}}/{{task}}.zarr"

    @property
    def transfer(self) -> str:
        """What tuning on each task does to every task, at every checkpoint."""
        return f"{self.suite}/taskspace/transfer.zarr"

    @property
    def checkpoint_gradients(self) -> str:
        """How similar the gradient differentials of every two tasks are at one checkpoint."""
        return f"{self.suite}/taskspace/gradients/{{revision}}.zarr"

    @property
    def gradients(self) -> str:
        """The same at every checkpoint."""
        return f"{self.suite}/taskspace/gradients.zarr"

    @property
    def space(self) -> str:
        """Tasks as points, from transfer and from gradients, with what is hypothesised of them."""
        return f"{self.suite}/taskspace/space.zarr"

    @property
    def bridge(self) -> str:
        """Transfer between tasks beside the features that they share, and without these features."""
        return f"{self.run}/bridge.zarr"

    @property
    def seeds(self) -> str:
        """Features of every seed matched with those of the first, and the stability of their effects."""
        return f"{self.suite}/{{comparison}}/{{variant}}/seeds.zarr"

    @property
    def report(self) -> str:
        """The first page of the report; its directory holds all that it needs."""
        return f"{self.suite}/report/index.html"

    @property
    def report_figures(self) -> str:
        """The figures of the report, by page."""
        return f"{self.suite}/report/figures"

    @property
    def scan_report(self) -> str:
        """The first page of a report on the scan alone."""
        return f"{self.suite}/scan_report/index.html"

    @property
    def benchmarks(self) -> str:
        """What Snakemake measured of the jobs of a suite."""
        return f"{self.suite}/benchmarks"

    def log(self, rule: str, job: str = "") -> str:
        """Return the log of a rule; `job` holds the wildcards that tell its jobs apart."""
        return self._of_job("logs", rule, job, "log")

    def benchmark(self, rule: str, job: str = "") -> str:
        """Return the time and memory a job took; `job` as for `log`."""
        return self._of_job("benchmarks", rule, job, "tsv")

    def _of_job(self, kind: str, rule: str, job: str, ending: str) -> str:
        name = f"{rule}/{job}" if job else rule
        return f"{self.suite}/{kind}/{name}.{ending}"
