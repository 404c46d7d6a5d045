"""The variants of crosscoder: one file each. A new file in this directory is found by itself.

A variant is a class of settings that says how its codes are chosen; its `sparsity` is its name in the configuration.
"""

from functools import reduce
from importlib import import_module
from operator import or_
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated, get_args

from pydantic import Field

from chronocoder.variants.base import CrosscoderSettings


def _find_variants() -> dict[str, type[CrosscoderSettings]]:
    found = {}
    for module in iter_modules(__path__):
        for value in vars(import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, CrosscoderSettings):
                for name in get_args(value.model_fields["sparsity"].annotation):  # none: a base of variants
                    found[name] = value
    return found


VARIANTS = _find_variants()

if TYPE_CHECKING:
    Variant = CrosscoderSettings
else:
    Variant = Annotated[reduce(or_, VARIANTS.values()), Field(discriminator="sparsity")]
