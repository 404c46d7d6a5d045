"""What all scripts share: flags made from settings, logging, and errors without a traceback."""

import argparse
import gc
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from chronocoder.config.loading import LoadingSettings
from chronocoder.errors import ChronocoderError, ConfigError
from chronocoder.settings import Settings
from chronocoder.sharing import LOG_FORMAT
from chronocoder.variants import VARIANTS
from chronocoder.variants.base import CrosscoderSettings

# Importing torch and transformers makes millions of objects that all stay: collecting garbage meanwhile takes a fifth
# of a short job's time. Every script imports this module first.
gc.set_threshold(200_000, 20, 20)

SettingsT = TypeVar("SettingsT", bound=Settings)


def to_flags(settings: Settings) -> list[str]:
    """Return settings as command-line arguments, one flag a field, that `from_flags` reads back."""
    flags: list[str] = []
    for name, value in settings.model_dump(mode="json").items():
        if value is not None:
            flags += [_flag(name), value if isinstance(value, str) else json.dumps(value)]
    return flags


def add_flags(parser: argparse.ArgumentParser, model: type[Settings]) -> None:
    """Add one flag for each field of a settings model, with its description and default."""
    group = parser.add_argument_group(model.__name__, model.__doc__)
    for name, field in model.model_fields.items():
        required = field.is_required()
        note = "" if required else f" (default: {field.get_default(call_default_factory=True)})"
        text = f"{field.description or ''}{note}".replace("%", "%%")
        group.add_argument(_flag(name), dest=name, required=required, default=None, help=text, metavar="VALUE")


def from_flags(arguments: argparse.Namespace, model: type[SettingsT]) -> SettingsT:
    """Return the settings that the parsed flags of `add_flags` state; the model turns text into numbers.

    Raises:
        ConfigError: names each wrong flag, its value and what is allowed.
    """
    texts = {name: getattr(arguments, name) for name in model.model_fields}
    given = {name: _value(name, text) for name, text in texts.items() if text is not None}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(entry, model) for entry in error.errors())) from None


def add_variant_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--sparsity` and the flags of the variant that it names on this command line; `variant_from` reads them."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--sparsity", choices=VARIANTS)
    name = first.parse_known_args()[0].sparsity
    if name is None:
        parser.add_argument(
            "--sparsity", choices=VARIANTS, required=True, help="the variant; each has flags of its own"
        )
    else:
        add_flags(parser, VARIANTS[name])


def variant_from(arguments: argparse.Namespace) -> CrosscoderSettings:
    """Return the variant that the parsed flags of `add_variant_flags` state."""
    return from_flags(arguments, VARIANTS[arguments.sparsity])


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main function; a mendable error is one message and exit status 1."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    try:
        main()
    except (ChronocoderError, ValidationError) as error:
        logging.getLogger("chronocoder").error("%s", error)
        sys.exit(getattr(error, "status", 1))
    finally:
        gc.freeze()  # else all of it is searched once more at the end, a quarter of a short job's time


@dataclass(frozen=True)
class GivenCheckpoints:
    """Checkpoints as `add_checkpoints` takes them.

    Attributes:
        suite: name of the suite.
        paths: directory by revision, in order of training.
        tokens_seen: tokens seen by revision.
    """

    suite: str
    paths: dict[str, Path]
    tokens_seen: dict[str, int]


def add_checkpoints(parser: argparse.ArgumentParser) -> None:
    """Add the flags by which a script takes several checkpoints of a suite."""
    parser.add_argument("--suite", required=True, help="name of the suite")
    parser.add_argument("--revisions", nargs="+", required=True, help="names of the checkpoints, in order of training")
    parser.add_argument("--checkpoints", type=Path, nargs="+", required=True, help="their directories, same order")
    parser.add_argument("--tokens-seen", type=int, nargs="+", required=True, help="tokens each has seen, same order")


def checkpoints_from(arguments: argparse.Namespace) -> GivenCheckpoints:
    """Return the checkpoints that the flags of `add_checkpoints` name.

    Raises:
        ConfigError: the flags do not list equally many.
    """
    paths, tokens_seen = (paired(arguments, "revisions", name) for name in ("checkpoints", "tokens_seen"))
    return GivenCheckpoints(arguments.suite, paths, tokens_seen)


def add_loading(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how models are loaded; `loading_from` reads them."""
    parser.add_argument("--loading", default="{}", metavar="JSON", help="how models are loaded: loading of a suite")
    parser.add_argument("--device-map", help="device_map of it, where it is not in there")


def loading_from(arguments: argparse.Namespace) -> LoadingSettings:
    """Return how models are to be loaded, as the flags of `add_loading` say.

    Raises:
        ConfigError: they are wrong; the message names the key.
    """
    values = _value("loading", arguments.loading)
    if not isinstance(values, dict):
        raise ConfigError(f"--loading: {arguments.loading} is no JSON object; correct it")
    if arguments.device_map is not None:
        values["device_map"] = arguments.device_map
    try:
        return LoadingSettings.model_validate(values)
    except ValidationError as error:
        wrong = (f"--loading: {'.'.join(map(str, entry['loc']))}: {_message(entry)}" for entry in error.errors())
        raise ConfigError("\n".join(wrong)) from None


def require(arguments: argparse.Namespace, *names: str) -> None:
    """Check that flags are given.

    Raises:
        ConfigError: names those that are not.
    """
    if missing := [_flag(name) for name in names if getattr(arguments, name) is None]:
        raise ConfigError(f"{', '.join(missing)}: not given; give {', '.join(_flag(name) for name in names)} together")


def paired(arguments: argparse.Namespace, keys: str, values: str) -> dict[Any, Any]:
    """Return what two flags list, the one by the other.

    Raises:
        ConfigError: the flags do not list equally many, or the first one lists something twice.
    """
    lists = getattr(arguments, keys), getattr(arguments, values)
    if len(lists[0]) != len(lists[1]):
        counts = f"{len(lists[0])} and {len(lists[1])}"
        raise ConfigError(f"{_flag(keys)} and {_flag(values)} list {counts} values; give equally many of each")
    if repeated := [key for key in lists[0] if lists[0].count(key) > 1]:
        raise ConfigError(f"{_flag(keys)} lists '{repeated[0]}' more than once; list each of them once")
    return dict(zip(*lists, strict=True))


def _value(name: str, text: str) -> Any:
    """Return what a flag holds: lists and mappings are JSON, anything else is left to the model."""
    if text[:1] not in ("[", "{"):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{_flag(name)}: {text} is no JSON ({error}); correct it") from None


def _describe(entry: ErrorDetails, model: type[Settings]) -> str:
    if not entry["loc"]:  # flags that contradict each other
        return f"{model.__name__}: {_message(entry)}"
    name, *places = entry["loc"]
    return f"{_flag(str(name))}{''.join(f'[{place}]' for place in places)}: {_message(entry)}"


def _message(entry: ErrorDetails) -> str:
    message = entry["msg"].removeprefix("Value error, ")
    if entry["type"] != "value_error":  # the models' own messages name the value
        message += f" (found {entry['input']!r})"
    return message


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
