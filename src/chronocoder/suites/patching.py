"""Replacing attributes of modules for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def replaced_attribute(module: nn.Module, name: str, value: Callable[..., Any]) -> Iterator[None]:
    """Give a module another attribute for a while; one that was set on it before, as accelerate does, comes back."""
    before = vars(module).get(name)
    setattr(module, name, value)
    try:
        yield
    finally:
        delattr(module, name)
        if before is not None:
            setattr(module, name, before)
