"""Where a suite's checkpoints come from."""

from functools import cached_property
from typing import Annotated, Literal

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, field_validator, model_validator

from chronocoder.config.runs import SavedCheckpoint, saved_checkpoints, steps_of, tokenizer_directory
from chronocoder.config.selection import ALL, Choice, ChoiceOrTokens, Selection, chosen_of, kind_of_choice
from chronocoder.nearest import nearest_names
from chronocoder.settings import Name, Settings
from chronocoder.suites.families import HubPlace, KnownCheckpoint, Run, load_family

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


GivenCheckpoints = Annotated[dict[Name, LocalCheckpoint], Tag("given"), Field(min_length=1)]


class LocalSource(Settings):
    """Checkpoints that lie in local Hugging Face directories: those of a run, or given one by one."""

    kind: Literal["local"] = Field(description="Read the checkpoints from directories.")
    path: str | None = Field(
        None,
        description="Directory of a run, with `checkpoint-500` and so on as transformers' Trainer saves them, or with"
        " Hugging Face directories `step500` and so on. The tokenizer is in a checkpoint or beside them.",
    )
    tokens_per_step: PositiveInt | None = Field(
        None,
        description="Tokens of a training step, where the run does not record the tokens seen; it counts where both are"
        " there.",
    )
    checkpoints: Annotated[Choice | GivenCheckpoints, Discriminator(kind_of_choice)] = Field(
        ALL,
        description="Which of the run's: `all`, a list of names, or a pattern such as `{log: 12}`. Without `path`:"
        " checkpoints by name, in order of training.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "LocalSource":
        given = isinstance(self.checkpoints, dict)
        if given == (self.path is not None):
            raise ValueError(
                "checkpoints are given with their paths, and there is a path of a run; remove one of them"
                if given
                else "needs the path of a run, or checkpoints with a path and tokens_seen each; give one of them"
            )
        _ = self.saved, self.tokenizer
        return self

    @cached_property
    def saved(self) -> dict[str, SavedCheckpoint]:
        """The checkpoints by name, in the order given or of training."""
        if isinstance(self.checkpoints, dict):
            return {name: SavedCheckpoint(one.path, one.tokens_seen) for name, one in self.checkpoints.items()}
        steps = steps_of(str(self.path))
        listed = self.checkpoints if isinstance(self.checkpoints, list) else list(steps)
        if unknown := [name for name in listed if name not in steps]:
            nearest = ", ".join(nearest_names(unknown[0], steps))
            raise ValueError(f"checkpoint '{unknown[0]}' is not in {self.path}; the nearest are {nearest}")
        there = saved_checkpoints(str(self.path), {name: steps[name] for name in listed}, self.tokens_per_step)
        chosen = chosen_of(self.checkpoints, {name: one.tokens_seen for name, one in there.items()})
        return {name: there[name] for name in chosen}

    @cached_property
    def tokenizer(self) -> str:
        """Directory of the tokenizer."""
        if self.path is None:
            return next(iter(self.saved.values())).path
        return tokenizer_directory(self.path, self.saved)

    @cached_property
    def tokens_seen(self) -> dict[str, int]:
        """Tokens trained on before each checkpoint, by name, in the order given or of training."""
        return {name: checkpoint.tokens_seen for name, checkpoint in self.saved.items()}


class HubSource(Settings):
    """Checkpoints that are revisions on the Hugging Face hub: of a known family, or of a repository."""

    kind: Literal["hub"] = Field(description="Download the checkpoints.")
    family: str | None = Field(
        None,
        description="A family whose revisions and tokens are known: `pythia`, `olmo`, `olmo2`, `olmo3`, `olmoe`,"
        " `bloom`, `smollm2`, `smollm3`, `amber`. The files in src/chronocoder/suites/families name their sources.",
    )
    size: str | None = Field(None, description="Which of the family's runs, for instance `1b` or `160m-deduped`.")
    pretraining_seed: PositiveInt | None = Field(
        None, description="The run that repeats it with another seed, where there are such: PolyPythia's 1 to 9."
    )
    repository: str | None = Field(
        None,
        pattern=r"^[\w.\-]+/[\w.\-]+$",
        description="In place of `family`: a repository, for instance `EleutherAI/pythia-1b`.",
    )
    checkpoints: ChoiceOrTokens = Field(
        description="Of a family: `all`, a list of names, or a pattern such as `{every: 10}`; a name is a revision,"
        " `main`, or the tokens that end one (`tokens4B`). Of a repository: tokens seen by revision (branch, tag or"
        " commit), in order of training; of a family too, for a revision that is not known."
    )
    tokenizer: str | None = Field(
        None, description="Repository of the tokenizer, for revisions that have none; families bring theirs."
    )
    pickled_weights: bool = Field(
        False,
        description="Take pickled weights (`pytorch_model*.bin`) of revisions that have no safetensors; they are"
        " converted once, by a process that reads nothing but weights.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "HubSource":
        if (self.family is None) == (self.repository is None):
            raise ValueError(f"needs family or repository, and has {'both' if self.family else 'neither'}; give one")
        if self.family is None and (self.size or self.pretraining_seed):
            raise ValueError("size and pretraining_seed are of a family, and there is a repository; remove them")
        if self.family is None and not isinstance(self.checkpoints, dict):
            raise ValueError(
                f"checkpoints of repository {self.repository}: their tokens are not known; give each as name: tokens"
            )
        if self.family is not None and self.size is None:
            sizes = ", ".join(load_family(self.family).sizes)
            raise ValueError(f"family '{self.family}' needs a size; set size to one of {sizes}")
        _ = self.tokens_seen
        return self

    @cached_property
    def run(self) -> Run | None:
        """The run of the family; none where there is only a repository."""
        if self.family is None:
            return None
        return load_family(self.family).run(str(self.size), self.pretraining_seed)

    def located(self, name: str) -> HubPlace:
        """Return the repository and the revision of a checkpoint."""
        return self._known[name].place

    @property
    def tokenizer_repository(self) -> str | None:
        """Where the tokenizer comes from for revisions that have none."""
        return self.tokenizer or (self.run.tokenizer if self.run else None)

    @property
    def run_names(self) -> list[str]:
        """What names the run, whichever of its checkpoints are taken: they share their tokenizer."""
        return [str(one) for one in (self.family, self.size, self.pretraining_seed, self.repository)]

    @cached_property
    def tokens_seen(self) -> dict[str, int]:
        """Tokens trained on before each checkpoint, by name, in the order given or of training."""
        return {name: checkpoint.tokens_seen for name, checkpoint in self._known.items()}

    @cached_property
    def _known(self) -> dict[str, KnownCheckpoint]:
        if isinstance(self.checkpoints, dict):
            repository = self.run.repository if self.run else str(self.repository)
            given = self.checkpoints.items()
            return {name: KnownCheckpoint(HubPlace(repository, name), tokens) for name, tokens in given}
        assert self.run is not None, "a choice is of a family"
        written = self.checkpoints.names if isinstance(self.checkpoints, Selection) else []
        known = {name: checkpoint.tokens_seen for name, checkpoint in self.run.called(written).items()}
        return {name: self.run.find(name) for name in chosen_of(self.checkpoints, known)}


Source = Annotated[NurserySource | LocalSource | HubSource, Field(discriminator="kind")]
