"""Where a suite's checkpoints come from."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from chronocoder.settings import Name, Settings

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
