"""The packages that the GPU benchmark needs, for a machine that cannot download any."""

import subprocess
import sys
from pathlib import Path

GIVEN = ("torch", "transformers", "accelerate", "triton", "xarray", "numpy")
"""Packages that such a machine is expected to have, with what these need themselves."""
PACKAGES = (
    "annotated-types",  # pydantic's
    "donfig",  # zarr's
    "google-crc32c",
    "jaxtyping",
    "numcodecs",  # zarr's
    "pydantic",
    "pydantic_core",
    "typing-inspection",  # pydantic's
    "typing_extensions",  # which torch needs too, but pydantic as new as it is here
    "wadler_lindig",  # jaxtyping's
    "zarr",
)
CONSTRAINTS = Path(__file__).parents[2] / "envs" / "constraints.txt"
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")


def requirements() -> list[str]:
    """Return the packages with the versions that the project is tested with."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0]: line for line in lines if "==" in line}
    return [pinned[name] for name in PACKAGES]


def download(directory: Path, python: str) -> None:
    """Download their wheels for Linux on x86-64.

    Args:
        directory: where to.
        python: version of Python that is to run them, for instance `3.12`.

    Raises:
        subprocess.CalledProcessError: pip, which says why, could not.
    """
    platforms = [option for platform in PLATFORMS for option in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--dest", str(directory), "--no-deps", *platforms]
    command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
    subprocess.run([*command, *requirements()], check=True)
