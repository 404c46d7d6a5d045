"""What has to hold on a GPU."""

from pathlib import Path

import pytest
import torch
from gpu_checks import CHECKS, NotHereError


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: only that the checks run is tested, by gpu.py")
@pytest.mark.parametrize("name", CHECKS)
def test_on_the_gpu(name: str, tmp_path: Path) -> None:
    try:
        CHECKS[name](torch.device("cuda", 0), tmp_path)
    except NotHereError as reason:
        pytest.skip(str(reason))
