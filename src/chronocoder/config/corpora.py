"""Where the text comes from that activations are harvested on."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from chronocoder.settings import Settings


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
