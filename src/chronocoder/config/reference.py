"""The configuration's JSON schema and its reference page, both made from the typed models."""

import json
from pathlib import Path
from typing import Any

from chronocoder.config.experiment import Experiment

SCHEMA_PATH = Path("workflow/schemas/config.schema.json")
PAGE_PATH = Path("docs/configuration.md")
_INTRODUCTION = """# Configuration

Made from the typed models by `make reference`; `Experiment` is the whole file. Unknown keys are refused.
A key without a default has to be given.
"""


def schema_text() -> str:
    """Return the JSON schema of the configuration."""
    return json.dumps(Experiment.model_json_schema(), indent=2) + "\n"


def page_text() -> str:
    """Return the reference page: a table for each part of the configuration."""
    schema = Experiment.model_json_schema()
    parts = {"Experiment": schema, **schema["$defs"]}
    return "\n".join([_INTRODUCTION, *(_section(name, part) for name, part in parts.items())])


def _section(name: str, part: dict[str, Any]) -> str:
    required = part.get("required", [])
    rows = [
        f"| `{key}` | {_type(entry)} | {_default(key, entry, required)} | {_cell(entry)} |"
        for key, entry in part.get("properties", {}).items()
    ]
    heading = f"## {name}\n\n{part.get('description', '')}\n"
    return "\n".join([heading, "| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""])


def _cell(entry: dict[str, Any]) -> str:
    return str(entry.get("description", "")).replace("|", "\\|")


def _default(key: str, entry: dict[str, Any], required: list[str]) -> str:
    if key in required or "const" in entry:
        return "" if "const" not in entry else f"`{entry['const']}`"
    return f"`{json.dumps(entry['default'])}`" if "default" in entry else "as below"


def _type(entry: dict[str, Any]) -> str:
    if "$ref" in entry:
        name = entry["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "enum" in entry:
        return " or ".join(f"`{value}`" for value in entry["enum"])
    options = entry.get("anyOf") or entry.get("oneOf")
    if options:
        return " or ".join(_type(option) for option in options)
    if entry.get("type") == "array":
        return f"list of {_type(entry.get('items', {}))}"
    if entry.get("type") == "object":
        values: dict[str, Any] = entry.get("additionalProperties") or next(
            iter(entry.get("patternProperties", {}).values()), {}
        )
        return f"mapping of names to {_type(values)}"
    return f"`{entry['const']}`" if "const" in entry else str(entry.get("type", "value"))
