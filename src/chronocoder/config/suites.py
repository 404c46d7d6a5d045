"""A suite: a pretraining run, its text, its tasks and its comparisons."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from chronocoder.config.comparisons import AUTO_COMPARISONS, ChoiceSettings, Comparison, ScanSettings
from chronocoder.config.corpora import Corpus
from chronocoder.config.files import expand_tasks
from chronocoder.config.loading import LoadingSettings
from chronocoder.config.sources import NurserySource, Source
from chronocoder.config.tasks import Task
from chronocoder.config.taskspace import FEWEST_PAIRS, SpaceSettings
from chronocoder.labels import is_foreign, is_identity
from chronocoder.nearest import nearest_names
from chronocoder.settings import Name, Settings, Site
from chronocoder.site_names import parse_site
from chronocoder.suites.nursery.language import tasks_of


def _by_name(given: Any) -> Any:
    if isinstance(given, str):
        raise ValueError("is neither `auto` nor a mapping of comparisons by name; write one of them")
    return given


Comparisons = Annotated[
    dict[Name, Comparison],
    BeforeValidator(_by_name, json_schema_input_type=dict[Name, Comparison] | Literal["auto"]),
]
"""By name. `auto`, which stands for none that are given and the default budget, is replaced before it gets here."""


class Suite(Settings):
    """One pretraining run, the text and the tasks it is examined on, and the comparisons to make."""

    source: Source = Field(description="Where the checkpoints come from.")
    corpus: Corpus = Field(description="Where the text for the activations comes from.")
    loading: LoadingSettings = Field(default_factory=LoadingSettings, description="How models are loaded.")
    site: Site = Field(
        description="Where activations are read: `embedding`, `residual.N`, `final`, `attention_out.N`, `mlp_in.N`,"
        " `mlp_out.N` or `head_out.N.H`."
    )
    tasks: dict[Name, Task] = Field(min_length=1, description="Sets of minimal pairs, by name.")
    comparisons: Comparisons = Field(
        description="Crosscoder inputs, by name; none where the suite only supplies checkpoints to others, or has a"
        " `scan` or a `taskspace`. `auto`: all are chosen."
    )
    auto: ChoiceSettings | None = Field(
        None, description="Choose comparisons beside those given; the budget, the default one with `comparisons: auto`."
    )
    scan: ScanSettings | None = Field(
        None,
        description="Look at every checkpoint cheaply, and score in full only those that comparisons or `scan.study`"
        " name.",
    )
    taskspace: SpaceSettings | None = Field(
        None, description="Relate the tasks to one another by tuning copies of checkpoints; not done where not given."
    )
    contrasts: dict[Name, list[Name]] = Field(
        default_factory=dict,
        description="A task where a surface rule suffices, and those where the same rule fails: the report looks"
        " for features that help the one and harm the others.",
    )

    @model_validator(mode="before")
    @classmethod
    def _auto_is_a_budget(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("comparisons") == AUTO_COMPARISONS:
            return {**values, "comparisons": {}, "auto": values.get("auto") or {}}
        return values

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

    @property
    def readers(self) -> list[str]:
        """Names of the checkpoints that read the suite's text or tasks, those of other suites among them.

        Those that are scored in full, and those of comparisons. Scans check for themselves what they read, and what is
        chosen is among what was scored or scanned.
        """
        own = self.studied if self.reported else []
        named = [checkpoint for comparison in self.comparisons.values() for checkpoint in comparison.checkpoints]
        return list(dict.fromkeys([*own, *named]))

    @property
    def comparison_names(self) -> list[str]:
        """Names of the comparisons that are given and of those that may be chosen."""
        return [*self.comparisons, *(self.auto.names if self.auto else [])]

    @property
    def reported(self) -> bool:
        """Whether there is a report: on comparisons, neither controls nor single, or their choice; or on the tasks."""
        return bool(self.examined or self.auto or self.taskspace)

    @property
    def sites(self) -> list[str]:
        """The sites that comparisons, given or chosen, are read at; where there are none, that of the suite."""
        chosen = {self.auto.site or self.site} if self.auto else set()
        return sorted({self.site_of(name) for name in self.comparisons} | chosen) or [self.site]

    @property
    def studied(self) -> list[str]:
        """The suite's own checkpoints that are scored in full: all, or after a scan those that anything names.

        Where nothing names one, they are the first and the last.
        """
        order = list(self.tokens_seen)
        if self.scan is None:
            return order
        named = {revision for comparison in self.comparisons.values() for revision in comparison.checkpoints}
        wanted = named.union(self.scan.study, self.taskspace.checkpoints if self.taskspace else [])
        return [revision for revision in order if revision in wanted] or [order[0], order[-1]]

    @property
    def space_tasks(self) -> list[str]:
        """Names of the tasks that the task space relates; none where there is no task space."""
        if self.taskspace is None:
            return []
        return [task for task in self.tasks if self.taskspace.tasks is None or task in self.taskspace.tasks]

    @property
    def hypothesis(self) -> dict[str, str]:
        """The group that each task of the task space is hypothesised to belong to, by task."""
        groups = self.taskspace.hypothesis if self.taskspace else {}
        given = {task: name for name, tasks in groups.items() for task in tasks}
        return {task: given.get(task) or self.tasks[task].group.phenomenon or task for task in self.space_tasks}

    @property
    def bridged(self) -> list[str]:
        """Names of the comparisons whose features are held against the transfer between tasks."""
        if self.taskspace is None:
            return []
        if self.taskspace.bridge is not None:
            return self.taskspace.bridge
        shared = set(self.taskspace.checkpoints)
        return [name for name in self.examined if shared & set(self.comparisons[name].checkpoints)]

    def with_comparisons(self, chosen: Mapping[str, Comparison]) -> "Suite":
        """Return the suite with chosen comparisons after the given ones."""
        return self.model_copy(update={"comparisons": {**self.comparisons, **chosen}})

    def successors_of(self, comparison: str, variant: str) -> list[str]:
        """Return the examined comparisons that begin where one ends, at its site, of those that have a variant."""
        last, site = self.comparisons[comparison].checkpoints[-1], self.site_of(comparison)
        return [
            name
            for name in self.examined
            if self.comparisons[name].checkpoints[0] == last
            and self.site_of(name) == site
            and variant in (self.comparisons[name].variants or [variant])
        ]

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
        self._check_choice()
        self._check_scan()
        self._check_taskspace()
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

    def _check_choice(self) -> None:
        if self.auto is None:
            return
        if taken := [name for name in self.auto.names if name in self.comparisons]:
            raise ValueError(f"comparisons.{taken[0]}: the name is that of a comparison to be chosen; rename it")
        if unknown := [task for task in self.auto.tasks or [] if task not in self.tasks]:
            raise ValueError(
                f"auto.tasks: '{unknown[0]}' is not among the suite's tasks; choose from {', '.join(self.tasks)}"
            )
        count, rate = len(self.auto.tasks or self.tasks), self.auto.false_discovery_rate
        if (self.auto.resamples + 1) * rate < count:
            raise ValueError(
                f"auto.resamples {self.auto.resamples}: a change of one of {count} tasks could not be told from chance;"
                f" take at least {math.ceil(count / rate)}"
            )

    def _check_scan(self) -> None:
        study = self.scan.study if self.scan else []
        if unknown := [revision for revision in study if revision not in self.tokens_seen]:
            raise ValueError(
                f"scan.study: checkpoint '{unknown[0]}' does not exist in the suite;"
                f" choose from {', '.join(self.tokens_seen)}"
            )

    def _check_taskspace(self) -> None:
        if self.taskspace is None:
            return
        order = list(self.tokens_seen)
        self._check_space_names(self.taskspace)
        if self.taskspace.checkpoints != sorted(self.taskspace.checkpoints, key=order.index):
            raise ValueError(
                f"taskspace.checkpoints {self.taskspace.checkpoints} must be in order of training;"
                f" list them as {', '.join(sorted(self.taskspace.checkpoints, key=order.index))}"
            )
        if len(self.space_tasks) < 2:
            raise ValueError(f"taskspace: relates tasks, and the suite has only {', '.join(self.tasks)}; add one")
        for name in set(self.taskspace.bridge or []) & set(self.comparisons):
            if not set(self.comparisons[name].checkpoints) & set(self.taskspace.checkpoints):
                raise ValueError(
                    f"taskspace.bridge: '{name}' has no checkpoint among {', '.join(self.taskspace.checkpoints)};"
                    " add one to taskspace.checkpoints"
                )

    def _check_space_names(self, space: SpaceSettings) -> None:
        grouped = [task for tasks in space.hypothesis.values() for task in tasks]
        bridged = [*self.examined, *(self.auto.names if self.auto else [])]
        known = {
            "checkpoints": ("the suite's checkpoints", space.checkpoints, list(self.tokens_seen)),
            "tasks": ("the suite's tasks", space.tasks or [], list(self.tasks)),
            "hypothesis": ("the tasks of the task space", grouped, self.space_tasks),
            "bridge": ("the comparisons that the report is about", space.bridge or [], bridged),
        }
        for key, (those, names, possible) in known.items():
            for number, name in enumerate(names):
                if name not in possible:
                    raise ValueError(
                        f"taskspace.{key}: '{name}' is not among {those}; choose from {', '.join(possible) or 'none'}"
                    )
                if name in names[:number]:
                    raise ValueError(f"taskspace.{key}: '{name}' is named twice; name it once")

    def check_space_pairs(self, held_out: float) -> None:
        """Check that no task of the task space is known to have too few pairs on a side.

        Args:
            held_out: fraction of the pairs that are held out.

        Raises:
            ValueError: one is; the message names the keys and the remedy.
        """
        for name in self.space_tasks:
            task = self.tasks[name]
            key, pairs = ("pairs", task.pairs) if task.kind == "nursery" else ("limit", task.limit)
            if pairs is not None and pairs * min(held_out, 1 - held_out) < FEWEST_PAIRS:
                raise ValueError(
                    f"tasks.{name}.{key} {pairs}: the task space needs {FEWEST_PAIRS} pairs to tune on and as many to"
                    f" evaluate on, with taskspace.held_out {held_out:g}; raise it to several times {2 * FEWEST_PAIRS},"
                    " take a held_out nearer to 0.5, or leave the task out of taskspace.tasks"
                )

    def _check_nursery(self) -> None:
        if self.source.kind == "nursery":
            for where in sorted({self.site, *self.sites}):
                self._check_inside_nursery(where, self.source)
            self._check_languages(self.source.languages)
            return
        users = [f"tasks.{name}" for name, task in self.tasks.items() if task.kind == "nursery"]
        users += ["corpus"] if self.corpus.kind == "nursery" else []
        if users:
            raise ValueError(
                f"{users[0]}: kind 'nursery' needs a source of kind 'nursery', not '{self.source.kind}';"
                " give a file instead"
            )

    def _check_inside_nursery(self, where: str, nursery: NurserySource) -> None:
        site = parse_site(where)
        inner = {"blocks": (site.block(nursery.blocks), nursery.blocks), "heads": (site.head or 0, nursery.heads)}
        for things, (number, count) in inner.items():
            if number >= count:
                raise ValueError(
                    f"site '{where}' is outside the model: it has {things} 0 to {count - 1}; choose one of them"
                )

    def _check_languages(self, languages: list[str]) -> None:
        for name, task in self.tasks.items():
            if task.kind == "nursery" and task.language not in languages:
                found = f"language '{task.language}' is not among" if task.language else "no language is given, of"
                raise ValueError(
                    f"tasks.{name}: {found} the suite's languages {', '.join(languages)}; set language to one of them"
                )
            if task.kind == "nursery" and task.task not in (known := tasks_of(task.language)):
                choices = ", ".join(nearest_names(task.task, known, len(known)))
                raise ValueError(
                    f"tasks.{name}: the grammar of {task.language} has no task '{task.task}'; choose from {choices}"
                )

    def _check_contrasts(self) -> None:
        for simple, conflicting in self.contrasts.items():
            for task in (simple, *conflicting):
                if task not in self.tasks:
                    raise ValueError(
                        f"contrasts.{simple}: task '{task}' is not among the suite's tasks;"
                        f" choose from {', '.join(self.tasks)}"
                    )
