"""What all configuration models share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")]
"""A name that becomes part of a result path: letters, digits, `_`, `-`, `.`; no slash."""

CheckpointName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*(@[A-Za-z0-9][A-Za-z0-9_.\-]*)?$")
]
"""A revision of the suite, or `revision@suite` of another one."""

Site = Annotated[str, StringConstraints(pattern=r"^(residual|mlp_out|attention_out)\.[0-9]+$")]
"""Where activations are read: `residual.N`, `mlp_out.N` or `attention_out.N` of the 0-based block N."""


class Settings(BaseModel):
    """A part of the configuration: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
