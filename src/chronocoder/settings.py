"""What all configuration models share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from chronocoder.site_names import SITE_PATTERN

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")]
"""A name that becomes part of a result path: letters, digits, `_`, `-`, `.`; no slash."""

CheckpointName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*(@[A-Za-z0-9][A-Za-z0-9_.\-]*)?$")
]
"""A revision of the suite, or `revision@suite` of another one."""

Site = Annotated[str, StringConstraints(pattern=f"^{SITE_PATTERN}$")]
"""Where activations are read; `chronocoder.suites.sites.resolve_site` says what the names mean."""


class Settings(BaseModel):
    """A part of the configuration: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
