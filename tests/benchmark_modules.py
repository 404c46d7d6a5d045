"""Benchmarks as modules: they are scripts, and no package holds them."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load_benchmark(name: str) -> ModuleType:
    """Return the benchmark of a name, without running it; it finds the modules beside it, as a script does."""
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))
    specification = spec_from_file_location(f"{name}_benchmark", BENCHMARKS / f"{name}.py")
    assert specification and specification.loader
    module = module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module
