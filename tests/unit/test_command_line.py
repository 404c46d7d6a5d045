"""A wrong flag says which it is, what it holds and what is allowed."""

import argparse

import pytest

from chronocoder.command_line import add_flags, add_loading, from_flags, loading_from, run_script
from chronocoder.config import AblationSettings, AttributionSettings, LoadingSettings
from chronocoder.errors import ConfigError
from chronocoder.settings import Settings
from chronocoder.variants import VARIANTS

BATCHTOPK = ["--sparsity", "batchtopk", "--dictionary-size", "8", "--steps", "3", "--k", "2"]
WRONG: list[tuple[type[Settings], list[str], str]] = [
    (AttributionSettings, ["--steps", "0"], "--steps: Input should be greater than 0 (found '0')"),
    (
        AttributionSettings,
        ["--steps", "ten"],
        "--steps: Input should be a valid integer, unable to parse string as an integer (found 'ten')",
    ),
    (
        AttributionSettings,
        ["--estimator", "guess", "--confidence", "1"],
        "--estimator: Input should be 'auto', 'exact', 'two_stages', 'grouped_gradients', 'attribution_patching' or"
        " 'published' (found 'guess')\n"
        "--confidence: Input should be less than 1 (found '1')",
    ),
    (AblationSettings, ["--set-sizes", "[1, 0]"], "--set-sizes[1]: Input should be greater than 0 (found 0)"),
    (
        AblationSettings,
        ["--set-sizes", "[2, 1]"],
        "--set-sizes: set_sizes [2, 1] must ascend without repetition; sort the list",
    ),
    (
        AblationSettings,
        ["--set-sizes", "[1, 2"],
        "--set-sizes: [1, 2 is no JSON (Expecting ',' delimiter: line 1 column 6 (char 5)); correct it",
    ),
    (VARIANTS["batchtopk"], [*BATCHTOPK, "--k", "9"], "BatchTopK: k 9 exceeds dictionary_size 8; lower it"),
]


def parsed(model: type[Settings], flags: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_flags(parser, model)
    return parser.parse_args(flags)


@pytest.mark.parametrize(("model", "flags", "message"), WRONG, ids=[" ".join(flags[-2:]) for _, flags, _ in WRONG])
def test_message_names_flag_value_and_remedy(model: type[Settings], flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_flags(parsed(model, flags), model)
    assert str(caught.value) == message


def test_a_wrong_flag_is_one_message_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def main() -> None:
        from_flags(parsed(AttributionSettings, ["--batch-size", "-1"]), AttributionSettings)

    with pytest.raises(SystemExit, match="1"):
        run_script(main)
    assert caplog.messages == ["--batch-size: Input should be greater than 0 (found '-1')"]
    assert caplog.records[0].exc_info is None


def loading(*flags: str) -> LoadingSettings:
    parser = argparse.ArgumentParser()
    add_loading(parser)
    return loading_from(parser.parse_args(flags))


def test_loading_comes_in_two_parts_of_which_one_changes_results() -> None:
    settings = LoadingSettings(dtype="bfloat16", attention="eager", device_map="auto", gpus=2)
    found = loading("--loading", settings.deciding, "--device-map", settings.device_map)
    assert found == settings.model_copy(update={"gpus": 1})
    assert settings.deciding == settings.model_copy(update={"device_map": "none", "gpus": 1}).deciding
    assert loading() == LoadingSettings()


WRONG_LOADING = [
    (["--loading", '{"dtype": "int4"}'], r"--loading: dtype: Input should be 'auto', .* \(found 'int4'\)"),
    (["--loading", "half"], "--loading: half is no JSON object; correct it"),
    (["--loading", '{"dtype"'], r"--loading: \{\"dtype\" is no JSON"),
    (["--device-map", "some"], "--loading: device_map: Input should be 'none' or 'auto'"),
]


@pytest.mark.parametrize(("flags", "message"), WRONG_LOADING)
def test_wrong_loading_is_named(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loading(*flags)
