"""GPUs and other generic resources of a node, as users ask for them and as SLURM lists them."""

import re

_TYPED = r"[\w.+-]*[A-Za-z][\w.+-]*:[1-9][0-9]*"
_ENTRY = r"[A-Za-z][\w-]*(:[\w.+-]+)?(:[0-9]+[kmgtpKMGTP]?)?"
_OF_GPUS = ("gpu", "mps", "shard")


def is_typed(text: str) -> bool:
    """Say whether a text is `type:count`, such as `a100:2` or `1g.5gb:1`, or several such with commas between."""
    return bool(re.fullmatch(f"{_TYPED}(,{_TYPED})*", text))


def is_gres(text: str) -> bool:
    """Say whether a text is `name`, `name:count` or `name:type:count`, or several such with commas between."""
    return bool(re.fullmatch(f"{_ENTRY}(,{_ENTRY})*", text))


def gpus_in(gres: str) -> dict[str, int]:
    """Return how many GPUs of each type are in a list of generic resources; those of no type have an empty one.

    Args:
        gres: as sbatch takes it, such as `gpu:a100:2,tmp:100G`, or as sinfo shows it, such as `gpu:a100:4(S:0-1)`.
    """
    gpus: dict[str, int] = {}
    for entry in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *words = entry.split(":")
        if name == "gpu":
            count = int(words.pop()) if words and words[-1].isdigit() else 1
            gpus[":".join(words)] = gpus.get(":".join(words), 0) + count
    return gpus


def gpus_of(types: str) -> dict[str, int]:
    """Return how many GPUs of each type are in `type:count`, or several such with commas between; none in no text."""
    return gpus_in(",".join(f"gpu:{part}" for part in types.split(","))) if types else {}


def without_gpus(gres: str) -> str:
    """Return a list of generic resources without GPUs and shares of them."""
    return ",".join(entry for entry in gres.split(",") if entry.split(":")[0] not in _OF_GPUS)
