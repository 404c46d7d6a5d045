"""Where the text comes from that activations are harvested on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from chronocoder.settings import Settings

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


class Labelled(Settings):
    """What is kept of the origin of each sequence, through activations to the examples of features."""

    language: str = Field("", description="Language of the text, shown beside examples from it.")
    source: str = Field(
        "",
        description="Name of the text, shown beside examples from it; in a mixture its path or dataset if not given.",
    )


class Documents(Labelled):
    """Text as documents, with columns where the format has them."""

    text_field: str = Field("text", description="Key of a JSONL line, or column, that holds the text.")
    language_field: str | None = Field(
        None, description="Key or column with each document's language. No sequence is of several."
    )
    source_field: str | None = Field(
        None, description="Key or column that names each document's source. No sequence is of several."
    )

    @model_validator(mode="after")
    def _one_label(self) -> Self:
        for name in ("language", "source"):
            value, column = getattr(self, name), getattr(self, f"{name}_field")
            if value and column:
                raise ValueError(f"{name} '{value}' and {name}_field '{column}' are both given; give one")
        return self


class TextFiles(Documents):
    """Local files: text with a document a line, JSONL, Parquet."""

    kind: Literal["text"] = Field(description="Read the text from files.")
    path: str = Field(
        description="A file that ends in `.txt`, `.jsonl`, `.json` (lines as well; each also with `.gz` or `.zst`) or"
        " `.parquet`; or a folder or a pattern (`text/**/*.jsonl.zst`), whose files are read in order of their paths."
    )
    whole_files: bool = Field(
        False, description="Take each `.txt` file as one document, rather than each of its lines."
    )


class HubDataset(Documents):
    """A dataset of the Hugging Face hub, streamed."""

    kind: Literal["hub"] = Field(description="Stream the text from a dataset.")
    dataset: str = Field(description="Repository of the dataset, or a local directory in the same form.")
    name: str | None = Field(None, description="Configuration of the dataset, where it has several.")
    split: str = Field("train", description="Split of the dataset.")
    revision: str = Field(
        "main", description="Branch, tag or commit; what it was resolved to at first is kept in the suite's lock file."
    )
    shuffle_buffer: NonNegativeInt = Field(
        10_000, description="Documents that the next one is drawn from while streaming; 0 keeps the dataset's order."
    )
    shuffle_seed: NonNegativeInt = Field(0, description="Seed of these draws, and of the order of the dataset's files.")

    @property
    def is_remote(self) -> bool:
        """Whether it has to be downloaded."""
        return not Path(self.dataset).is_dir()


class TokenFiles(Labelled):
    """Token ids made before, for instance in the order in which pretraining read them; no separator is added."""

    kind: Literal["tokens"] = Field(description="Take token ids as they are.")
    path: str = Field(description="A `.npy` file of one or two dimensions, or a `.bin` file; or a folder or a pattern.")
    dtype: Literal["uint8", "uint16", "uint32", "int32", "int64"] | None = Field(
        None, description="Number format of a `.bin` file, little endian; a `.npy` file states its own."
    )
    row_tokens: PositiveInt | None = Field(
        None,
        description="Tokens in a row of a file of one dimension (2049 in Pythia's own); one long row where not given."
        " Each row is cut into sequences, and its rest left out.",
    )

    @model_validator(mode="after")
    def _number_format(self) -> Self:
        if self.path.endswith(".bin") and self.dtype is None:
            raise ValueError(f"path '{self.path}': a .bin file does not state its number format; give its dtype")
        return self


CorpusSource = TextFiles | HubDataset | TokenFiles


class CorpusSettings(Settings):
    """How much text is harvested, and in what pieces."""

    train_tokens: PositiveInt = Field(description="Tokens in the split the crosscoders are trained on.")
    validation_tokens: PositiveInt = Field(description="Tokens in the split they are judged on.")
    sequence_length: int = Field(ge=2, description="Tokens in a sequence, its first (separator) token included.")

    def sequences(self, split: str) -> int:
        """Return the number of sequences of a split."""
        return int(getattr(self, f"{split}_tokens")) // self.sequence_length

    @property
    def tokenising_processes(self) -> int:
        """How many processes tokenise, where there are cores for them."""
        return 8

    @property
    def parts(self) -> Sequence[CorpusSource]:
        """The sources of the text, one or, in a mixture, several; none where it is generated."""
        return [self] if isinstance(self, CorpusSource) else []

    @property
    def needs_network(self) -> bool:
        """Whether some of the text has to be downloaded."""
        return any(isinstance(part, HubDataset) and part.is_remote for part in self.parts)

    @model_validator(mode="after")
    def _whole_sequences(self) -> Self:
        for split in SPLITS:
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

    @property
    def tokenising_processes(self) -> int:
        """One, since generating the text takes longer than tokenising it."""
        return 1


class TextCorpus(CorpusSettings, TextFiles):
    """Local files: text with a document a line, JSONL, Parquet."""


class HubCorpus(CorpusSettings, HubDataset):
    """A dataset of the Hugging Face hub, streamed."""


class TokenCorpus(CorpusSettings, TokenFiles):
    """Token ids made before, for instance in the order in which pretraining read them; no separator is added."""


class Weighted(Settings):
    """A source in a mixture."""

    weight: PositiveFloat = Field(
        allow_inf_nan=False, description="Sequences from this source, in proportion to the weights of the others."
    )


class WeightedText(Weighted, TextFiles):
    """Local files in a mixture."""


class WeightedHub(Weighted, HubDataset):
    """A dataset of the Hugging Face hub in a mixture."""


class WeightedTokens(Weighted, TokenFiles):
    """Token ids made before, in a mixture."""


MixtureSource = Annotated[WeightedText | WeightedHub | WeightedTokens, Field(discriminator="kind")]


class MixtureCorpus(CorpusSettings):
    """Several sources by weight; each sequence is of one of them, and a seed decides their order."""

    kind: Literal["mixture"] = Field(description="Mix several sources.")
    sources: list[MixtureSource] = Field(min_length=1, description="What is mixed.")
    seed: NonNegativeInt = Field(
        0, description="Seed of the order in which sequences of the sources follow each other."
    )

    @property
    def parts(self) -> Sequence[CorpusSource]:
        """The sources of the text."""
        return self.sources


Corpus = Annotated[NurseryCorpus | TextCorpus | HubCorpus | TokenCorpus | MixtureCorpus, Field(discriminator="kind")]
