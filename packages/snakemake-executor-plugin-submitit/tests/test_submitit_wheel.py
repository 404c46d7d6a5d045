"""The package as it is built: what is in it, what it says of itself, and that it needs nothing of the project."""

import json
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution
from pathlib import Path
from shutil import copy, copytree

import pytest
from snakemake_executor_plugin_submitit.request import RESOURCES

PACKAGE = Path(__file__).parents[1]
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
LOADED = """\
import json, sys
for absent in ("chronocoder", "numpy", "torch"):
    sys.modules[absent] = None
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry
plugin = ExecutorPluginRegistry().get_plugin("submitit")
module = sys.modules["snakemake_executor_plugin_submitit"]
import snakemake_executor_plugin_submitit.__main__
print(json.dumps([module.__file__, plugin.cli_prefix, sorted(plugin.settings_cls.__dataclass_fields__)]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel, unpacked; it is built offline, from a copy, with the tools that are here."""
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        copy(PACKAGE / name, source)
    copytree(PACKAGE / "src", source / "src")
    subprocess.run([sys.executable, "-c", BUILD, str(wheels)], cwd=source, check=True, capture_output=True)
    (wheel,) = wheels.glob("snakemake_executor_plugin_submitit-*-py3-none-any.whl")
    unpacked = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(unpacked)
    return unpacked


def test_the_wheel_holds_all_modules_and_says_that_they_are_typed(site: Path) -> None:
    source = PACKAGE / "src" / "snakemake_executor_plugin_submitit"
    modules = {path.name for path in source.iterdir() if path.is_file()}
    assert "py.typed" in modules
    assert {path.name for path in (site / source.name).iterdir()} == modules


def test_the_wheel_says_what_it_is_and_what_it_needs(site: Path) -> None:
    (place,) = site.glob("*.dist-info")
    metadata = Distribution.at(place).metadata
    assert (metadata["Name"], metadata["License-Expression"]) == ("snakemake-executor-plugin-submitit", "MIT")
    assert metadata["Author"] and metadata["Summary"] and metadata.get_all("Classifier") and metadata["Keywords"]
    assert (place / "licenses" / "LICENSE").exists()
    needs = {line.split(">=")[0] for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line}
    interfaces = {f"snakemake-interface-{name}" for name in ("common", "executor-plugins")}
    assert needs == {"psutil", "snakemake", "submitit", *interfaces}
    text = str(metadata.get_payload())
    assert text.startswith("# snakemake-executor-plugin-submitit")
    assert "](../" not in text  # what is read from the wheel leads nowhere outside


def test_snakemake_finds_the_plugin_where_neither_torch_nor_the_project_is(site: Path) -> None:
    command = [sys.executable, "-c", LOADED]
    done = subprocess.run(command, cwd=site, env={"PYTHONPATH": str(site)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    place, prefix, settings = json.loads(done.stdout)
    assert Path(place).parent.parent == site
    assert prefix == "submitit"
    readme = (PACKAGE / "README.md").read_text()
    assert [name for name in settings if f"\n| `{name.replace('_', '-')}` |" not in readme] == []
    assert [name for name in RESOURCES if f"`{name}`" not in readme] == []
