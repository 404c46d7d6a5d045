"""Converting pickled weights to safetensors, once, in a process without network.

That process unpickles with `weights_only`, which makes tensors and plain containers and nothing else, and does not know
the hub's token. Where the kernel lets it make a network namespace of its own it has no network at all; elsewhere every
socket that Python would open is refused by an audit hook, which native code could circumvent.
"""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from chronocoder.errors import ConfigError

_INDEX = "pytorch_model.bin.index.json"
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000


def convert_pickled(directory: Path) -> None:
    """Replace the `pytorch_model*.bin` of a Hugging Face directory by safetensors with the same tensors.

    Raises:
        ConfigError: they hold more than weights, or cannot be read; they are left as they are.
    """
    environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
    command = [sys.executable, "-m", __name__, str(directory)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["killed"])[-1]
        raise ConfigError(
            f"{directory}: its pickled weights cannot be converted ({reason}); choose a checkpoint with safetensors"
        )
    for pickled in [*directory.glob("pytorch_model*.bin"), directory / _INDEX]:
        pickled.unlink(missing_ok=True)


def leave_network() -> bool:
    """Cut this process off the network; return whether the kernel does it, and not an audit hook."""
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_USER | _NEW_NETWORK) == 0:
        return True

    def refuse(event: str, _: Any) -> None:
        if event.startswith("socket."):
            raise PermissionError(f"{event}: this process has no network")

    sys.addaudithook(refuse)
    return False


def convert_files(directory: Path) -> None:
    """Write each pickled file of a directory as safetensors, tensors that share memory as copies, and the index."""
    import torch
    from safetensors.torch import save_file

    for pickled in sorted(directory.glob("pytorch_model*.bin")):
        weights = torch.load(pickled, map_location="cpu", weights_only=True)
        seen: set[int] = set()
        for name, tensor in weights.items():
            pointer = tensor.untyped_storage().data_ptr()
            alone = tensor.contiguous() if pointer not in seen else tensor.clone(memory_format=torch.contiguous_format)
            weights[name] = alone
            seen.add(pointer)
        partial = directory / f"{pickled.name}.partial"
        save_file(weights, partial, metadata={"format": "pt"})
        partial.rename(directory / _renamed(pickled.name))
    if (directory / _INDEX).is_file():
        index = json.loads((directory / _INDEX).read_text(encoding="utf-8"))
        index["weight_map"] = {name: _renamed(file) for name, file in index["weight_map"].items()}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _renamed(name: str) -> str:
    return name.removeprefix("pytorch_").removesuffix(".bin") + ".safetensors"


if __name__ == "__main__":
    leave_network()  # before anything else runs: only a process of one thread may
    convert_files(Path(sys.argv[1]))
