"""CRC-32C of blocks of memory, while other threads go on.

The package's own functions hold the interpreter's lock, so that threads that verify chunks would take turns and keep a
GPU waiting for its next kernels. What they call is in a library that `ctypes` calls without the lock.
"""

import ctypes
from collections.abc import Callable
from functools import cache

import google_crc32c
import numpy as np


def checksum(block: np.ndarray) -> int:
    """Return the CRC-32C of a contiguous block."""
    return _checksum()(block)


@cache
def _checksum() -> Callable[[np.ndarray], int]:
    try:
        from google_crc32c import _crc32c

        function = ctypes.CDLL(_crc32c.__file__).crc32c_value
    except (ImportError, OSError, AttributeError):  # built in another way: the same numbers, one thread at a time
        value: Callable[[np.ndarray], int] = google_crc32c.value
        return value
    function.restype, function.argtypes = ctypes.c_uint32, [ctypes.c_void_p, ctypes.c_size_t]
    return lambda block: function(block.ctypes.data, block.nbytes)
