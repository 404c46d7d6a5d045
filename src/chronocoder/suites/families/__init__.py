"""Families of models whose pretraining checkpoints are public: one data file each, which names its sources.

A file says what the public record says; that a revision is really there only the hub knows. Importing this is cheap.
"""

import functools
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Any, NamedTuple

import yaml
from pydantic import Field, PositiveInt

from chronocoder.nearest import nearest_names
from chronocoder.settings import Settings

MAIN = "main"


class HubPlace(NamedTuple):
    """Where a checkpoint lies on the hub.

    Attributes:
        repository: for instance `EleutherAI/pythia-1b`.
        revision: branch, tag or commit.
    """

    repository: str
    revision: str


class KnownCheckpoint(NamedTuple):
    """A checkpoint that a family is known to have.

    Attributes:
        place: where it lies.
        tokens_seen: tokens the model had been trained on.
    """

    place: HubPlace
    tokens_seen: int


class Steps(Settings):
    """Steps at equal distances, both ends among them."""

    first: int = Field(ge=0, description="The first step.")
    last: int = Field(ge=0, description="The last step.")
    every: PositiveInt = Field(description="Steps from one to the next.")


class Rule(Settings):
    """Revisions of a repository that are named by one template."""

    name: str = Field(
        description="The revision: `{step}`, `{down}` and `{up}` stand for the step and for its tokens in billions,"
        " rounded down and up; `{step:03}` has leading zeros."
    )
    steps: list[int | Steps] = Field(description="The steps that have a revision.")
    missing: list[int] = Field(default_factory=list, description="Steps among them that have none.")
    tokens_per_step: PositiveInt | None = Field(None, description="Tokens of a step.")
    tokens_before: int = Field(0, description="Tokens before step 0, where an earlier stage went before.")
    tokens_seen: list[int] | None = Field(None, description="Tokens of each step, where steps differ.")
    repository: str | None = Field(None, description="Another repository than the run's.")

    def checkpoints(self, repository: str) -> Iterator[tuple[str, KnownCheckpoint]]:
        """Yield the revisions with their names."""
        for step, tokens in self._tokens():
            name = self.name.format(
                step=step, down=(tokens - self.tokens_before) // 10**9, up=-(-(tokens - self.tokens_before) // 10**9)
            )
            yield name, KnownCheckpoint(HubPlace(self.repository or repository, name), tokens)

    def _tokens(self) -> Iterator[tuple[int, int]]:
        steps = [step for entry in self.steps for step in _steps(entry) if step not in self.missing]
        if self.tokens_seen is not None:
            yield from zip(steps, self.tokens_seen, strict=True)
        else:
            yield from ((step, self.tokens_before + step * (self.tokens_per_step or 0)) for step in steps)


class Final(Settings):
    """The end of a pretraining, at the branch `main`."""

    tokens_seen: PositiveInt = Field(description="Tokens the model had been trained on.")
    repository: str | None = Field(None, description="Another repository than the run's.")


class Run(Settings):
    """One pretraining run of a family."""

    repository: str = Field(description="Its repository on the hub.")
    checkpoints: list[Rule] = Field(min_length=1, description="Its revisions.")
    main: Final | None = Field(None, description="Its end, where `main` is that and the tokens are one number.")
    tokenizer: str | None = Field(None, description="Repository of its tokenizer, where revisions have none.")

    @functools.cached_property
    def known(self) -> dict[str, KnownCheckpoint]:
        """The checkpoints by name, in order of training; `main` only where no other name is of the same tokens."""
        found: dict[str, KnownCheckpoint] = {}
        for rule in self.checkpoints:
            for name, checkpoint in rule.checkpoints(self.repository):
                found.setdefault(name, checkpoint)
        ordered = dict(sorted(found.items(), key=lambda entry: entry[1].tokens_seen))
        last = next(reversed(ordered.values())).tokens_seen
        if self.main is not None and self.main.tokens_seen > last:
            ordered[MAIN] = self._main(self.main)
        return ordered

    def find(self, name: str) -> KnownCheckpoint:
        """Return a checkpoint by its revision, by `main`, or by its tokens in the way that revisions write them.

        `tokens4B` is `step2000-tokens4B` where exactly one revision of the run ends so.

        Raises:
            ValueError: there is none; names the nearest.
        """
        if name in self.known:
            return self.known[name]
        if name == MAIN and self.main is not None:
            return self._main(self.main)
        ending = [known for known in self.known if known.endswith(f"-{name}")]
        if name.startswith("tokens") and len(ending) == 1:
            return self.known[ending[0]]
        among = ending or nearest_names(name, self.known)
        raise ValueError(f"checkpoint '{name}' is not known of {self.repository}; the nearest are {', '.join(among)}")

    def called(self, names: Iterable[str]) -> dict[str, KnownCheckpoint]:
        """Return the known checkpoints, under these of the names that `find` takes where they are given.

        Raises:
            ValueError: one of the names is not known.
        """
        given = {self.find(name).tokens_seen: name for name in names}
        known = (given.get(checkpoint.tokens_seen, name) for name, checkpoint in self.known.items())
        return {name: self.find(name) for name in known}

    def _main(self, main: Final) -> KnownCheckpoint:
        return KnownCheckpoint(HubPlace(main.repository or self.repository, MAIN), main.tokens_seen)


class Seeds(Settings):
    """Runs that repeat others with another seed."""

    repository: str = Field(description="Their repository: `{size}` and `{seed}` stand for these.")
    sizes: list[str] = Field(description="The sizes that are repeated.")
    seeds: list[int] = Field(description="The seeds.")


class Family(Settings):
    """Pretraining runs that name their checkpoints alike."""

    name: str = Field(description="Its name.")
    sources: list[str] = Field(min_length=1, description="The public record that the file follows.")
    sizes: dict[str, Run] = Field(min_length=1, description="Its runs, by size.")
    pretraining_seeds: Seeds | None = Field(None, description="Its runs with other seeds.")

    def run(self, size: str, seed: int | None = None) -> Run:
        """Return a run.

        Raises:
            ValueError: there is none; names those that there are.
        """
        if size not in self.sizes:
            raise ValueError(f"size '{size}' is not known of family '{self.name}'; choose from {', '.join(self.sizes)}")
        if seed is None:
            return self.sizes[size]
        seeds = self.pretraining_seeds
        if seeds is None or size not in seeds.sizes or seed not in seeds.seeds:
            there = "none" if seeds is None else f"{seeds.seeds} of sizes {', '.join(seeds.sizes)}"
            raise ValueError(
                f"pretraining_seed {seed} of size '{size}' is not known of family '{self.name}'; there are {there}"
            )
        repository = seeds.repository.format(size=size, seed=seed)
        return Run.model_validate({**self.sizes[size].model_dump(), "repository": repository})


def family_names() -> list[str]:
    """Return the families that there are files of."""
    return sorted(entry.name.removesuffix(".yaml") for entry in files(__name__).iterdir() if entry.name[-5:] == ".yaml")


@functools.cache
def load_family(name: str) -> Family:
    """Return a family; what its file says of all sizes holds for each that does not say otherwise.

    Raises:
        ValueError: there is none; names those that there are.
    """
    if name not in family_names():
        raise ValueError(f"family '{name}' is not known; choose from {', '.join(family_names())}, or give repository")
    values: dict[str, Any] = yaml.safe_load((files(__name__) / f"{name}.yaml").read_text(encoding="utf-8"))
    shared = {key: values.pop(key) for key in Run.model_fields if key in values}
    sizes = {size: {**shared, **own} for size, own in values.pop("sizes").items()}
    return Family.model_validate({"name": name, "sizes": sizes, **values})


def _steps(entry: int | Steps) -> range:
    return range(entry, entry + 1) if isinstance(entry, int) else range(entry.first, entry.last + 1, entry.every)
