"""A folder, a pattern or a list of configurations becomes a task for each file or configuration."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from chronocoder.config import FileTask, PairsTask, Suite, Task, parse_experiment
from chronocoder.config.files import expand_tasks
from chronocoder.errors import ConfigError
from chronocoder.tasks.sources import read_pairs

DEFAULT = yaml.safe_load((Path(__file__).parents[2] / "config.yaml").read_text())
del DEFAULT["suites"]["nursery"]["taskspace"]  # which names tasks that tests take away
COLUMNS = {"good": "good", "bad": "bad"}


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("{}\n")


def expanded(**tasks: dict[str, Any]) -> dict[str, Task]:
    return expand_tasks(TypeAdapter(dict[str, Task]).validate_python(tasks))


def paths(**tasks: dict[str, Any]) -> dict[str, str | None]:
    return {name: task.path if isinstance(task, FileTask) else None for name, task in expanded(**tasks).items()}


def test_each_file_of_a_folder_is_a_task_with_the_settings_of_the_folder() -> None:
    put("data/b.jsonl", "data/a.jsonl", "data/c.csv.gz", "data/README.md", "data/.git/d.jsonl", "data/.e.jsonl")
    tasks = expanded(
        first={"kind": "nursery"}, sets={"kind": "blimp", "path": "data", "limit": 9}, z={"kind": "nursery"}
    )
    assert list(tasks) == ["first", "a", "b", "c", "z"]
    assert tasks["c"].model_dump(exclude_unset=True) == {"kind": "blimp", "path": "data/c.csv.gz", "limit": 9}
    assert expand_tasks(tasks) == tasks, "single files stay as they are"
    assert paths(sets={"kind": "pairs", "path": "data/"}) == {"a": "data/a.jsonl", "b": "data/b.jsonl"}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("data/*agreement*.jsonl", ["agreement_1", "agreement_2"]),
        ("data/agreement_[13].jsonl", ["agreement_1"]),
        ("data/*", ["agreement_1", "agreement_2", "island"]),
        ("*/deep", ["below"]),
        ("data/**/*.csv", ["below", "island"]),
    ],
)
def test_pattern_takes_the_files_and_folders_that_it_matches(tmp_path: Path, pattern: str, names: list[str]) -> None:
    put("data/agreement_1.jsonl", "data/agreement_2.jsonl", "data/island.csv", "data/notes.txt", "data/deep/below.csv")
    here = paths(sets={"kind": "blimp", "path": pattern})
    assert sorted(here) == sorted({*names, *(["below"] if pattern == "data/*" else [])})
    absolute = paths(sets={"kind": "blimp", "path": str(tmp_path / pattern)})
    assert absolute == {name: str(tmp_path / str(path)) for name, path in here.items()}


def test_folder_above_the_working_directory_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    put("a.jsonl", "inner/.b.jsonl")
    monkeypatch.chdir("inner")
    assert paths(sets={"kind": "pairs", "path": ".."}) == paths(sets={"kind": "pairs", "path": "../*"})
    assert paths(sets={"kind": "pairs", "path": ".."}) == {"a": "../a.jsonl"}


def test_single_file_keeps_its_key_even_if_it_is_not_there_or_looks_like_a_pattern() -> None:
    put("data/a[1].jsonl")
    given = {"one": {"kind": "blimp", "path": "no.jsonl"}, "two": {"kind": "blimp", "path": "data/a[1].jsonl"}}
    assert paths(**given) == {"one": "no.jsonl", "two": "data/a[1].jsonl"}


def test_files_of_several_languages_are_named_by_them() -> None:
    put("clams/en_evalset/simple.txt", "clams/fr_evalset/simple.txt", "clams/en_evalset/that.txt", "clams/README")
    both = {"simple_en": "clams/en_evalset/simple.txt", "that_en": "clams/en_evalset/that.txt"}
    both |= {"simple_fr": "clams/fr_evalset/simple.txt"}
    assert paths(clams={"kind": "clams", "path": "clams"}) == both
    assert paths(clams={"kind": "clams", "path": "clams/*_evalset"}) == both
    assert list(paths(clams={"kind": "clams", "path": "clams", "language": "fr"})) == ["simple_fr"]
    assert list(paths(clams={"kind": "clams", "path": "clams/en_evalset"})) == ["simple", "that"]


def test_files_that_name_their_languages_and_phenomena_make_families() -> None:
    put("clams/en_evalset/simple.txt", "clams/fr_evalset/simple.txt", "clams/en_evalset/that.txt")
    put("mb/eng/data.tsv", "mb/fra/data.tsv")
    suite = copy.deepcopy(DEFAULT["suites"]["nursery"])
    of_table = {"kind": "table", "columns": COLUMNS, "path": "a.csv", "language": "fra"}
    suite["tasks"] = {
        "clams": {"kind": "clams", "path": "clams"},
        "mb": {"kind": "multiblimp", "path": "mb", "phenomenon": "SV-#"},
        "own": {**of_table, "phenomenon": "SV-#"},
        "unknown": of_table,
    }
    suite["contrasts"] = {}
    found = {"simple": ["simple_en", "simple_fr"], "SV-#": ["mb_eng", "mb_fra", "own"]}
    assert Suite.model_validate(suite).families == found
    suite["tasks"] = {"clams": {"kind": "clams", "path": "clams/en_evalset"}}
    assert Suite.model_validate(suite).families == {}


def test_multiblimp_tasks_are_named_by_key_and_language() -> None:
    put("mb/eng/data.tsv", "mb/fra/data.tsv")
    assert list(paths(mb={"kind": "multiblimp", "path": "mb"})) == ["mb_eng", "mb_fra"]
    assert list(paths(mb={"kind": "multiblimp", "path": "mb", "language": "fra"})) == ["mb_fra"]
    configurations = expanded(mb={"kind": "multiblimp", "dataset": "jumelet/multiblimp", "names": ["eng", "fra"]})
    assert list(configurations) == ["mb_eng", "mb_fra"]
    french = {"kind": "multiblimp", "dataset": "d/e", "names": ["eng", "fra"], "language": "fra"}
    assert list(expanded(mb=french)) == ["mb_fra"]
    one = configurations["mb_fra"].model_dump(exclude_defaults=True)
    assert one == {"kind": "multiblimp", "dataset": "jumelet/multiblimp", "name": "fra"}


def test_configurations_of_a_dataset_are_tasks() -> None:
    tasks = expanded(blimp={"kind": "blimp", "dataset": "nyu-mll/blimp", "names": ["passive_1", "causative"]})
    assert list(tasks) == ["passive_1", "causative"]
    single = expanded(blimp={"kind": "blimp", "dataset": "nyu-mll/blimp", "name": "causative"})
    assert list(single) == ["blimp"]


def test_names_that_repeat_have_the_folder_and_are_valid() -> None:
    put("t/one/a.csv", "t/two/a.csv", "t/two/b c.csv", "t/x/two/-d!.csv")
    table = {"kind": "table", "columns": COLUMNS}
    assert sorted(paths(t={**table, "path": "t"})) == ["a_one", "a_two", "b_c", "d"]
    put("t/x/two/a.csv")
    assert sorted(paths(t={**table, "path": "t"})) == ["a_one", "a_two", "a_x_two", "b_c", "d"]
    put("t/two/a.jsonl")
    with pytest.raises(
        ValidationError, match=r"t\.path\n +gives several tasks the name 'a_two'; rename the files or narr"
    ):
        paths(t={**table, "path": "t"})


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (
            {"sets": {"kind": "clams", "path": "data"}},
            r"tasks\.sets\.path: 'data' holds no file that ends in \.txt \(there are: data/a\.jsonl, data/b\.csv\);"
            r" correct the path or the kind \(found 'data'\)",
        ),
        (
            {"sets": {"kind": "blimp", "path": "empty"}},
            r"'empty' holds no file that ends in .* \(there are: no files\)",
        ),
        (
            {"sets": {"kind": "pairs", "path": "d*/*.csv"}},
            r"'d\*/\*\.csv' matches no file that ends in \.jsonl \(there",
        ),
        (
            {"sets": {"kind": "blimp", "path": "no/*"}},
            r"sets\.path: 'no/\*' matches no file that ends in .*: no files\)",
        ),
        (
            {"clams": {"kind": "clams", "path": "clams", "language": "de"}},
            r"clams\.language: 'de' is the language of none of its files; choose from en \(found 'de'\)",
        ),
        (
            {"a": {"kind": "nursery"}, "sets": {"kind": "blimp", "path": "data"}},
            r"tasks\.sets\.path: gives a second task 'a'; rename a file or a key, or let one pattern match all files",
        ),
        (
            {"sets": {"kind": "blimp", "dataset": "d/e", "names": ["x", "x"]}},
            r"tasks\.sets\.names: gives several tasks the name 'x'; rename the files or narrow the pattern",
        ),
        (
            {"sets": {"kind": "blimp", "path": "data", "limits": 3}},
            r"tasks\.sets\.limits: unknown key; remove it or corr",
        ),
    ],
)
def test_message_names_the_key_of_the_folder(tasks: dict[str, Any], message: str) -> None:
    put("data/a.jsonl", "data/b.csv", "clams/en_evalset/x.txt")
    Path("empty").mkdir()
    config = copy.deepcopy(DEFAULT)
    config["suites"]["nursery"]["tasks"] = tasks
    config["suites"]["nursery"]["contrasts"] = {}
    with pytest.raises(ConfigError, match=r"c\.yaml: 1 wrong:\n  suites\.nursery\.[\s\S]*" + message):
        parse_experiment(config, "c.yaml")


def test_contrasts_name_the_tasks_of_files() -> None:
    put("data/simple.jsonl", "data/hard.jsonl")
    suite = copy.deepcopy(DEFAULT["suites"]["nursery"])
    suite["tasks"], suite["contrasts"] = {"own": {"kind": "pairs", "path": "data"}}, {"simple": ["hard"]}
    assert list(Suite.model_validate(suite).tasks) == ["hard", "simple"]
    assert json.loads(Suite.model_validate(suite).tasks["hard"].model_dump_json())["path"] == "data/hard.jsonl"


def test_snippets_of_the_documentation_are_valid() -> None:
    page = (Path(__file__).parents[2] / "docs/tasks.md").read_text(encoding="utf-8")
    snippets = [block.partition("```")[0] for block in page.split("```yaml\n")[1:]]
    tasks = [TypeAdapter(dict[str, Task]).validate_python(yaml.safe_load(snippet)["tasks"]) for snippet in snippets]
    assert {task.kind for part in tasks for task in part.values()} == {"blimp", "clams", "multiblimp", "table"}
    own = json.loads(page.split("```json\n")[1].partition("```")[0])
    Path("own.jsonl").write_text(json.dumps(own))
    (pair,) = read_pairs("own", PairsTask(kind="pairs", path="own.jsonl")).pairs
    assert pair.good == "the boy sees" and pair.condition == "singular"
