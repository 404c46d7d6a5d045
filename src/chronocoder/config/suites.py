"""Where a suite's checkpoints, its corpus and its tasks come from."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator, model_validator

from chronocoder.config.files import expand_tasks
from chronocoder.config.tasks import Task
from chronocoder.labels import Control, control_of, is_examined, is_foreign, is_identity
from chronocoder.settings import CheckpointName, Name, Settings, Site

NurseryLanguage = Literal["english", "french"]


class NurserySource(Settings):
    """A miniature language model pretrained inside the DAG on text from a seeded grammar."""

    kind: Literal["nursery"] = Field("nursery", description="Train the checkpoints here.")
    language: NurseryLanguage | Annotated[list[NurseryLanguage], Field(min_length=2)] = Field(
        "english",
        description="The grammar that makes the text; or a list of several, of which each makes an equal share.",
    )
    seed: int = Field(0, description="Seed of the weights and of the text.")
    tokenizer_seed: int | None = Field(
        None,
        description="Seed of the text that the tokenizer is trained on, where it is not `seed`; suites that share a"
        " comparison need the same.",
    )
    steps: list[int] = Field(
        [0, 1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 320],
        min_length=2,
        description="Training steps to save as checkpoints `step<n>`, ascending; the last ends the training.",
    )
    vocabulary_size: PositiveInt = Field(768, description="Entries of the subword tokenizer.")
    hidden_size: PositiveInt = Field(128, description="Width of the residual stream.")
    blocks: PositiveInt = Field(4, description="Transformer blocks.")
    heads: PositiveInt = Field(4, description="Attention heads a block.")
    sequence_length: PositiveInt = Field(64, description="Tokens in a training sequence.")
    batch_size: PositiveInt = Field(24, description="Sequences in a training step.")
    learning_rate: PositiveFloat = Field(4e-3, description="Peak learning rate of AdamW.")
    warmup_steps: PositiveInt = Field(20, description="Steps over which the learning rate rises linearly.")

    @field_validator("steps")
    @classmethod
    def _ascending(cls, steps: list[int]) -> list[int]:
        if steps != sorted(set(steps)) or steps[0] < 0:
            raise ValueError(f"steps {steps} must ascend from 0 or later without repetition; sort the list")
        return steps

    @field_validator("language")
    @classmethod
    def _distinct(cls, language: str | list[str]) -> str | list[str]:
        if isinstance(language, list) and len(set(language)) < len(language):
            raise ValueError(f"language {language} repeats; list each language once")
        return language

    @property
    def languages(self) -> list[str]:
        """The languages of the text."""
        return [self.language] if isinstance(self.language, str) else [*self.language]

    @property
    def text_seed(self) -> int:
        """Seed of the text that the tokenizer is trained on."""
        return self.seed if self.tokenizer_seed is None else self.tokenizer_seed

    @property
    def tokens_seen(self) -> dict[str, int]:
        """Tokens trained on before each checkpoint, by revision, ascending."""
        return {f"step{step}": step * self.batch_size * self.sequence_length for step in self.steps}


class LocalCheckpoint(Settings):
    """One checkpoint in a local Hugging Face directory."""

    path: str = Field(description="Directory with config.json, safetensors weights and a tokenizer.")
    tokens_seen: int = Field(ge=0, description="Tokens the model had been trained on.")


class LocalSource(Settings):
    """Checkpoints that lie in local Hugging Face directories."""

    kind: Literal["local"] = Field(description="Read the checkpoints from directories.")
    checkpoints: dict[Name, LocalCheckpoint] = Field(
        min_length=1, description="Checkpoints by revision name, in order of training."
    )

    @property
    def tokens_seen(self) -> dict[str, int]:
        """Tokens trained on before each checkpoint, by revision, in the order given."""
        return {name: checkpoint.tokens_seen for name, checkpoint in self.checkpoints.items()}


class HubSource(Settings):
    """Checkpoints that are revisions of a repository on the Hugging Face hub."""

    kind: Literal["hub"] = Field(description="Download the checkpoints.")
    repository: str = Field(pattern=r"^[\w.\-]+/[\w.\-]+$", description="For instance `EleutherAI/pythia-1b`.")
    checkpoints: dict[Name, int] = Field(
        min_length=1, description="Tokens seen by revision (branch, tag or commit), in order of training."
    )
    pickled_weights: bool = Field(
        False, description="Take pickled weights (`pytorch_model*.bin`) of revisions that have no safetensors."
    )

    @property
    def tokens_seen(self) -> dict[str, int]:
        """Tokens trained on before each checkpoint, by revision, in the order given."""
        return self.checkpoints


Source = Annotated[NurserySource | LocalSource | HubSource, Field(discriminator="kind")]


class CorpusSettings(Settings):
    """How much text is harvested, and in what pieces."""

    train_tokens: PositiveInt = Field(description="Tokens in the split the crosscoders are trained on.")
    validation_tokens: PositiveInt = Field(description="Tokens in the split they are judged on.")
    sequence_length: int = Field(ge=2, description="Tokens in a sequence, its first (separator) token included.")

    @model_validator(mode="after")
    def _whole_sequences(self) -> "CorpusSettings":
        for split in ("train", "validation"):
            tokens = getattr(self, f"{split}_tokens")
            if tokens < self.sequence_length:
                raise ValueError(
                    f"{split}_tokens {tokens} is less than one sequence of sequence_length"
                    f" {self.sequence_length}; ask for more tokens or shorter sequences"
                )
        return self


class NurseryCorpus(CorpusSettings):
    """Sentences of the suite's own grammar that its pretraining never contains."""

    kind: Literal["nursery"] = Field(description="Generate the text.")
    seed: int = Field(1, description="Seed of the text.")


class TextCorpus(CorpusSettings):
    """A local text file (one document a line) or JSONL file."""

    kind: Literal["text"] = Field(description="Read the text from a file.")
    path: str = Field(description="A `.txt` file with one document a line, or a `.jsonl` file.")
    text_field: str = Field("text", description="The key of a JSONL line that holds the text.")
    language: str = Field("", description="Language of the text, shown beside examples from it.")


class HubCorpus(CorpusSettings):
    """A dataset of the Hugging Face hub, streamed."""

    kind: Literal["hub"] = Field(description="Stream the text from a dataset.")
    dataset: str = Field(description="Repository of the dataset, or a local directory in the same form.")
    name: str | None = Field(None, description="Configuration of the dataset, where it has several.")
    split: str = Field("train", description="Split of the dataset.")
    text_field: str = Field("text", description="The column that holds the text.")
    language: str = Field("", description="Language of the text, shown beside examples from it.")


Corpus = Annotated[NurseryCorpus | TextCorpus | HubCorpus, Field(discriminator="kind")]


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


class Suite(Settings):
    """One pretraining run, the text and the tasks it is examined on, and the comparisons to make."""

    source: Source = Field(description="Where the checkpoints come from.")
    corpus: Corpus = Field(description="Where the text for the activations comes from.")
    site: Site = Field(description="Where activations are read: `residual.N`, `mlp_out.N` or `attention_out.N`.")
    tasks: dict[Name, Task] = Field(min_length=1, description="Sets of minimal pairs, by name.")
    comparisons: dict[Name, Comparison] = Field(
        description="Crosscoder inputs, by name; none where the suite only supplies checkpoints to others."
    )
    contrasts: dict[Name, list[Name]] = Field(
        default_factory=dict,
        description="A task where a surface rule suffices, and those where the same rule fails: the report looks"
        " for features that help the one and harm the others.",
    )

    @field_validator("tasks")
    @classmethod
    def _name_grammar_tasks(cls, tasks: dict[str, Task], info: ValidationInfo) -> dict[str, Task]:
        """Fill in what a generated task leaves out: the grammar's task, its language where there is one, its family."""
        source = info.data.get("source")
        languages = source.languages if isinstance(source, NurserySource) else []
        return {
            name: task.named(name, languages[0] if len(languages) == 1 else "") if task.kind == "nursery" else task
            for name, task in tasks.items()
        }

    @property
    def tokens_seen(self) -> dict[str, int]:
        """Tokens trained on before each checkpoint, by revision, in order of training."""
        return self.source.tokens_seen

    @property
    def families(self) -> dict[str, list[str]]:
        """The tasks of each phenomenon that has tasks in several languages."""
        found: dict[str, list[str]] = {}
        for name, task in self.tasks.items():
            if all(task.group):
                found.setdefault(task.group.phenomenon, []).append(name)
        return {
            phenomenon: names
            for phenomenon, names in found.items()
            if len({self.tasks[name].group.language for name in names}) > 1
        }

    @property
    def examined(self) -> list[str]:
        """Names of the comparisons that the report is about: neither controls nor of a single checkpoint."""
        return [name for name, comparison in self.comparisons.items() if comparison.examined]

    def site_of(self, comparison: str) -> str:
        """Return the site that a comparison's activations are read at."""
        return self.comparisons[comparison].site or self.site

    @field_validator("tasks")
    @classmethod
    def _one_task_a_file(cls, tasks: dict[str, Task]) -> dict[str, Task]:
        return expand_tasks(tasks)

    @model_validator(mode="after")
    def _consistent(self) -> "Suite":
        self._check_order()
        self._check_comparisons()
        self._check_baselines()
        self._check_nursery()
        self._check_contrasts()
        return self

    def _check_order(self) -> None:
        tokens = list(self.tokens_seen.values())
        if tokens != sorted(set(tokens)):
            raise ValueError(
                f"source.checkpoints: tokens_seen {tokens} must ascend; list the checkpoints in order of training"
            )

    def _check_comparisons(self) -> None:
        order = list(self.tokens_seen)
        for name, comparison in self.comparisons.items():
            own = [revision for revision in comparison.checkpoints if not is_foreign(revision)]
            for revision in own:
                if revision not in order:
                    raise ValueError(
                        f"comparisons.{name}: checkpoint '{revision}' does not exist in the suite;"
                        f" choose from {', '.join(order)}"
                    )
            places = [order.index(revision) for revision in own]
            if places != sorted(set(places)) and not is_identity(comparison.checkpoints):
                raise ValueError(
                    f"comparisons.{name}: checkpoints {comparison.checkpoints} must be in order of training,"
                    " without repetition, or all the same"
                )

    def _check_baselines(self) -> None:
        for name, comparison in self.comparisons.items():
            if comparison.baseline is not None:
                self._check_baseline(f"comparisons.{name}", name, comparison.baseline)

    def _check_baseline(self, key: str, name: str, baseline: list[str]) -> None:
        comparison = self.comparisons[name]
        if not comparison.examined:
            raise ValueError(f"{key}: baseline {baseline} is given to a control or a single checkpoint; remove it")
        if unknown := [single for single in baseline if single not in self.comparisons]:
            raise ValueError(
                f"{key}: baseline '{unknown[0]}' is not among the suite's comparisons;"
                f" choose from {', '.join(self.comparisons)}"
            )
        found = [self.comparisons[single].checkpoints for single in baseline]
        if found != [[checkpoint] for checkpoint in comparison.checkpoints]:
            raise ValueError(
                f"{key}: baseline {baseline} is of checkpoints {found}; name a comparison of one checkpoint for each of"
                f" {comparison.checkpoints}, in this order"
            )
        for single in baseline:
            if self.site_of(single) != self.site_of(name):
                raise ValueError(
                    f"{key}: baseline '{single}' is at site {self.site_of(single)}, not {self.site_of(name)};"
                    " give both the same site"
                )

    def _check_nursery(self) -> None:
        if self.source.kind == "nursery":
            for where in {self.site, *(self.site_of(name) for name in self.comparisons)}:
                if int(where.split(".")[1]) >= self.source.blocks:
                    raise ValueError(
                        f"site '{where}' is outside the model: it has blocks 0 to {self.source.blocks - 1};"
                        " choose one of them"
                    )
            self._check_languages(self.source.languages)
            return
        users = [f"tasks.{name}" for name, task in self.tasks.items() if task.kind == "nursery"]
        users += ["corpus"] if self.corpus.kind == "nursery" else []
        if users:
            raise ValueError(
                f"{users[0]}: kind 'nursery' needs a source of kind 'nursery', not '{self.source.kind}';"
                " give a file instead"
            )

    def _check_languages(self, languages: list[str]) -> None:
        for name, task in self.tasks.items():
            if task.kind == "nursery" and task.language not in languages:
                found = f"language '{task.language}' is not among" if task.language else "no language is given, of"
                raise ValueError(
                    f"tasks.{name}: {found} the suite's languages {', '.join(languages)}; set language to one of them"
                )

    def _check_contrasts(self) -> None:
        for simple, conflicting in self.contrasts.items():
            for task in (simple, *conflicting):
                if task not in self.tasks:
                    raise ValueError(
                        f"contrasts.{simple}: task '{task}' is not among the suite's tasks;"
                        f" choose from {', '.join(self.tasks)}"
                    )
