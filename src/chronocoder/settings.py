"""What all configuration models share."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from chronocoder.site_names import SITE_PATTERN

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")]
"""A name that becomes part of a result path: letters, digits, `_`, `-`, `.`; no slash."""

CheckpointName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*(@[A-Za-z0-9][A-Za-z0-9_.\-]*)?$")
]
"""A revision of the suite, or `revision@suite` of another one."""


def _site(name: str) -> str:
    if not re.fullmatch(SITE_PATTERN, name):
        raise ValueError(
            "no site of a model; write embedding, final, residual.N, mlp_in.N, mlp_out.N, attention_out.N or"
            " head_out.N.H, with N the block and H the head, from 0"
        )
    return name


Site = Annotated[str, AfterValidator(_site), Field(json_schema_extra={"pattern": f"^{SITE_PATTERN}$"})]
"""Where activations are read; `chronocoder.suites.sites.resolve_site` says what the names mean."""


class Settings(BaseModel):
    """A part of the configuration: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
