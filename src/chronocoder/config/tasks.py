"""Where the minimal pairs of a suite's tasks come from, and what is asked of them."""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, PositiveInt, model_validator

from chronocoder.settings import Settings
from chronocoder.tasks.published import collection_of

UNITS = {"next_token": "logit", "continuation": "nat", "sentence": "nat"}
"""The metrics of a task, and the units of what they compare."""
MetricChoice = Literal["auto", "next_token", "continuation", "sentence"]
TABLE_FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Endings of the files that hold tables; all but Parquet may be compressed, with `.gz` after the ending."""
_CLAMS_FOLDER = re.compile(r"([a-z]{2,3})_evalset")


class TaskGroup(NamedTuple):
    """What results of a task are grouped by; empty where unknown.

    Attributes:
        language: of its pairs.
        phenomenon: that they are about.
    """

    language: str
    phenomenon: str


class TaskSettings(Settings):
    """What all kinds of tasks share."""

    metric: MetricChoice = Field(
        "auto",
        description="What is compared: `next_token`, the right and the wrong token after the prefix that both sentences"
        " share; `continuation`, the log-probability of what both sentences end with; `sentence`, that of the whole"
        " sentences; `auto`: by what the token ids show.",
    )
    language: str = Field(
        "",
        description="Language of the pairs, by which results are grouped. Where the pairs name their languages, those"
        " of this one are taken.",
    )
    phenomenon: str = Field(
        "",
        description="Phenomenon that the pairs are about, by which results are grouped. Where the pairs name their"
        " phenomena, those of this one are taken.",
    )

    @property
    def group(self) -> TaskGroup:
        """The groups that the task is known to belong to before its pairs are read."""
        return TaskGroup(self.language, self.phenomenon)

    @property
    def supplies_counterfactual(self) -> bool:
        """Whether the pairs can have counterfactuals: where two sentences are compared, they are each other's."""
        return UNITS.get(self.metric) == "nat"


class NurseryTask(TaskSettings):
    """Minimal pairs from the grammar of one of the suite's languages."""

    kind: Literal["nursery"] = Field(description="Generate the pairs.")
    task: str = Field("", description="Task of the grammar; by default the name that the task has here.")
    pairs: PositiveInt = Field(300, description="Minimal pairs to generate.")
    seed: int = Field(2, description="Seed of the pairs.")

    @property
    def supplies_counterfactual(self) -> bool:
        """Whether the pairs can have counterfactual prefixes."""
        return True

    def named(self, name: str, language: str) -> "NurseryTask":
        """Return the same with the grammar's task, the language and the phenomenon filled in where they lack."""
        task = self.task or name
        found = {"task": task, "language": self.language or language, "phenomenon": self.phenomenon or task}
        return self.model_copy(update=found)


class FileTask(TaskSettings):
    """What tasks share whose pairs are read."""

    formats: ClassVar[tuple[str, ...]] = TABLE_FORMATS
    path: str | None = Field(
        None,
        description="File with the pairs; or a folder or a pattern (`blimp/*agreement*.jsonl`): then each file is a"
        " task of its own, named by it.",
    )
    limit: PositiveInt | None = Field(
        None,
        description="Pairs to draw, in equal numbers from each language, phenomenon and condition as far as there are"
        " enough; a larger limit keeps them and draws more. All pairs where not given.",
    )
    sample_seed: int = Field(0, description="Seed of the draw.")

    @property
    def group(self) -> TaskGroup:
        """The groups that the settings, or else the place of the pairs, put the task in."""
        return TaskGroup(self.language or self.place_language, self.phenomenon or self.place_phenomenon)

    @property
    def needs_network(self) -> bool:
        """Whether the pairs are neither in a local file nor in a local directory."""
        return False

    @property
    def published_pairs(self) -> int | None:
        """How many pairs a published set is known to have, before it is fetched."""
        return None

    @property
    def place_language(self) -> str:
        """The language that the place of the pairs says they are in; empty where it says none."""
        return ""

    @property
    def place_phenomenon(self) -> str:
        """The phenomenon that the place of the pairs says they are about; empty where it says none."""
        return ""


class TableSource(FileTask):
    """What tasks share whose pairs are read from a table, in a file or on the Hugging Face hub."""

    dataset: str | None = Field(
        None, description="In place of `path`: repository of a dataset on the hub, or a local directory in that form."
    )
    name: str | None = Field(None, description="Configuration of the dataset, where it has several.")
    names: tuple[str, ...] = Field(
        (), description="In place of `name`: several configurations, each a task of its own, named by it."
    )
    split: str = Field("train", description="Split of the dataset.")
    revision: str = Field(
        "main", description="Branch, tag or commit of the dataset; the commit it is first resolved to is kept."
    )

    @property
    def needs_network(self) -> bool:
        """Whether the pairs are neither in a local file nor in a local directory."""
        return self.dataset is not None and not Path(self.dataset).is_dir()

    @model_validator(mode="after")
    def _one_source(self) -> "TableSource":
        if (self.path is None) == (self.dataset is None):
            found = "both" if self.path else "neither"
            raise ValueError(f"needs either path or dataset, and has {found}; give one of them")
        if self.dataset is None and (self.name or self.names):
            raise ValueError("name and names are of a dataset, and there is only a path; remove them")
        if self.name and self.names:
            raise ValueError(f"has both name '{self.name}' and names {list(self.names)}; keep one of them")
        return self


def _names_no_source(values: Any) -> bool:
    """Say whether what a task is made from names neither file nor dataset."""
    return isinstance(values, dict) and all(values.get(key) is None for key in ("path", "dataset"))


class TableColumns(Settings):
    """The columns of a table, by what they hold: two sentences, or a prefix and its two continuations."""

    good: str | None = Field(None, description="The grammatical sentence.")
    bad: str | None = Field(None, description="The ungrammatical sentence.")
    prefix: str | None = Field(None, description="What both sentences begin with.")
    right: str | None = Field(
        None, description="The rest of the grammatical sentence, with the space that comes before it."
    )
    wrong: str | None = Field(None, description="The rest of the ungrammatical sentence, likewise.")
    condition: str | None = Field(None, description="What sets pairs apart within the task; at most 32 values.")
    language: str | None = Field(None, description="Language of the pair.")
    phenomenon: str | None = Field(None, description="Phenomenon that the pair is about.")
    counterfactual: str | None = Field(
        None, description="A prefix that differs as little as can be, and that the ungrammatical rest is right for."
    )

    @model_validator(mode="after")
    def _one_form(self) -> "TableColumns":
        texts = [key for key in ("good", "bad", "prefix", "right", "wrong") if getattr(self, key) is not None]
        if texts not in (["good", "bad"], ["prefix", "right", "wrong"]):
            raise ValueError(
                f"names {', '.join(texts) or 'no text'}; name either good and bad, or prefix, right and wrong"
            )
        return self


class TableTask(TableSource):
    """Minimal pairs from any table, its columns named here."""

    kind: Literal["table"] = Field(description="Read the pairs from a table.")
    columns: TableColumns = Field(description="The table's columns.")

    @property
    def supplies_counterfactual(self) -> bool:
        """Whether the pairs can have counterfactual prefixes."""
        return super().supplies_counterfactual or self.columns.counterfactual is not None


class BlimpTask(TableSource):
    """Minimal pairs in the form of BLiMP (Warstadt et al. 2020): `sentence_good` and `sentence_bad`.

    Where they are there, `linguistics_term` is the phenomenon, and `one_prefix_method`, `two_prefix_method` and
    `simple_LM_method` say which metrics ask what the set is about. With neither `path` nor `dataset` it is BLiMP
    itself, from the hub: its 67 sets, or those of `phenomenon`, or those that `name` or `names` name.
    """

    kind: Literal["blimp"] = Field(description="Read the pairs from a table in BLiMP's form.")

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        """Fill in the dataset and its sets."""
        if not _names_no_source(values):
            return values
        blimp = collection_of("blimp")
        given = [*(values.get("names") or ()), *filter(None, [values.get("name")])]
        blimp.check("sets", given)
        names = {} if given else {"names": blimp.about(values.get("phenomenon") or "")}
        return {**values, "dataset": blimp.dataset, **names}

    @property
    def published_pairs(self) -> int | None:
        """How many pairs a published set is known to have, before it is fetched."""
        blimp = collection_of("blimp")
        return blimp.pairs if self.dataset == blimp.dataset and self.name in blimp.sets else None

    @property
    def place_phenomenon(self) -> str:
        """The phenomenon that the place of the pairs says they are about; empty where it says none."""
        blimp = collection_of("blimp")
        return blimp.phenomena.get(self.name or "", "") if self.dataset == blimp.dataset else ""


class ClamsTask(FileTask):
    """Minimal pairs in the form of CLAMS (Mueller et al. 2020): `True` or `False`, a tab, the sentence.

    A folder `fr_evalset` names the language, the file the phenomenon. Without `path` it is CLAMS itself: the sets that
    all its languages have, from its repository on GitHub, of `languages` or of them all.
    """

    formats: ClassVar[tuple[str, ...]] = (".txt",)
    kind: Literal["clams"] = Field(description="Read the pairs from a text file in CLAMS' form.")
    path: str | None = Field(
        None,
        description="File with the pairs; or a folder or a pattern (`clams/*_evalset`): then each file is a task of its"
        " own, named by it and, where there are several languages, by its language.",
    )
    languages: tuple[str, ...] = Field(
        (), description="In place of `path`: languages whose published sets to take; all where neither is given."
    )
    name: str | None = Field(None, description="In place of `path`: one published set (`fr_evalset/subj_rel.txt`).")
    address: str = Field(
        collection_of("clams").address,
        description="Where published sets are fetched from: by default CLAMS' repository at a fixed commit.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "ClamsTask":
        if given := [key for key in ("path", "languages", "name") if getattr(self, key)][1:]:
            raise ValueError(f"has {given[0]} beside another source; keep one of path, languages and name")
        collection_of("clams").check("languages", self.languages)
        return self

    @property
    def needs_network(self) -> bool:
        """Whether the pairs are neither in a local file nor in a local directory."""
        return self.path is None

    @property
    def file_address(self) -> str:
        """Where a published set is fetched from."""
        return f"{self.address.rstrip('/')}/{self.name}"

    @property
    def place(self) -> Path:
        """The file, or where it lies below `address`."""
        return Path(self.path or self.name or "")

    @property
    def place_language(self) -> str:
        """The language that the place of the pairs says they are in; empty where it says none."""
        found = _CLAMS_FOLDER.fullmatch(self.place.parent.name)
        return found[1] if found else ""

    @property
    def place_phenomenon(self) -> str:
        """The phenomenon that the file is named by."""
        return self.place.name.partition(".")[0]

    def published(self) -> "list[ClamsTask]":
        """Return a task for each published set of the languages."""
        clams = collection_of("clams")
        names = [f"{code}_evalset/{name}.txt" for code in self.languages or clams.languages for name in clams.sets]
        return [self.model_copy(update={"name": name, "languages": ()}) for name in names]


class MultiBlimpTask(TableSource):
    """Minimal pairs in the form of MultiBLiMP (Jumelet et al. 2025): `sen`, `wrong_sen` and `phenomenon`.

    The language is the folder of a file `eng/data.tsv`, or the dataset's configuration. Several tasks are named by
    their key and the language: `multiblimp_eng`. With neither `path` nor `dataset` it is MultiBLiMP itself, from the
    hub: its sets of `languages`.
    """

    kind: Literal["multiblimp"] = Field(description="Read the pairs from a table in MultiBLiMP's form.")
    languages: tuple[str, ...] = Field(
        (), description="In place of `path`: languages whose published sets to take, each a task of its own (`eng`)."
    )

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        """Fill in the dataset, whose configurations the languages are."""
        if not _names_no_source(values):
            return values
        if not any(values.get(key) for key in ("languages", "names", "name")):
            raise ValueError("needs languages (`languages: [eng, fra]`), a path or a dataset; give one of them")
        names = {"names": values["languages"], "languages": ()} if values.get("languages") else {}
        return {**values, "dataset": collection_of("multiblimp").dataset, **names}

    @model_validator(mode="after")
    def _languages_are_of_the_published_sets(self) -> "MultiBlimpTask":
        if self.languages:
            raise ValueError(f"has languages {list(self.languages)} beside path or dataset; keep one of them")
        return self

    @property
    def place_language(self) -> str:
        """The language that the place of the pairs says they are in; empty where it says none."""
        if self.path is None:
            return self.name or ""
        path = Path(self.path)
        return path.parent.name if path.name.partition(".")[0] == "data" else ""


class PairsTask(FileTask):
    """Minimal pairs from a JSONL file of one's own, with or without counterfactual prefixes."""

    formats: ClassVar[tuple[str, ...]] = (".jsonl",)
    kind: Literal["pairs"] = Field(description="Read the pairs from a file.")
    path: str = Field(
        description="JSONL file with `prefix`, `right` and `wrong` on each line, and where wanted `counterfactual`,"
        " `condition`, `language` and `phenomenon`. Texts are joined as they stand: `right` and `wrong` begin with"
        " their space. Or a folder or a pattern: then each file is a task of its own, named by it."
    )

    @property
    def supplies_counterfactual(self) -> bool:
        """Whether the pairs can have counterfactual prefixes."""
        return True


Task = Annotated[
    NurseryTask | BlimpTask | ClamsTask | MultiBlimpTask | TableTask | PairsTask, Field(discriminator="kind")
]
