"""Accelerators, and the time that work takes on them."""

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from chronocoder.errors import ConfigError

STARTUP_S = 5.0
"""Seconds a job takes to import its libraries, measured on the nursery's; what a scheduler adds cannot be known."""

CPU = "cpu"


class Peak(NamedTuple):
    """What an accelerator computes at most.

    Attributes:
        float32: FLOP/s in single precision on the ordinary units: PyTorch leaves TF32 off unless told otherwise.
        bfloat16: FLOP/s of dense bfloat16 products; None where there are no such units.
        tf32: FLOP/s of dense TF32 products; None where there are no such units.
        float16: FLOP/s of dense float16 products; None where there are no such units.
    """

    float32: float
    bfloat16: float | None
    tf32: float | None = None
    float16: float | None = None

    def rate(self, precision: str) -> float:
        """Return FLOP/s in a number format; in float32 where there are no units for it."""
        return {"bfloat16": self.bfloat16, "tf32": self.tf32, "float16": self.float16}.get(precision) or self.float32


# NVIDIA's data sheets of the V100, A100, H100 and H200 Tensor Core GPU, each in the SXM form. The last two state TF32
# and 16-bit formats with sparsity, 989 and 1,979 TFLOP/s; dense products run at half of that. The RTX 3090 and 4090 as
# in the white papers of GA102 and of the Ada architecture, dense and with sums in float32.
ACCELERATORS = {
    "v100": Peak(15.7e12, None, None, 125e12),
    "a100": Peak(19.5e12, 312e12, 156e12, 312e12),
    "h100": Peak(67e12, 989.5e12, 494.5e12, 989.5e12),
    "h200": Peak(67e12, 989.5e12, 494.5e12, 989.5e12),
    "rtx3090": Peak(35.6e12, 71e12, 35.6e12, 71e12),
    "rtx4090": Peak(82.6e12, 165.2e12, 82.6e12, 165.2e12),
}
UTILISATION = 0.4
"""Fraction of the peak that is assumed to be reached."""


class Work(NamedTuple):
    """What a job computes and moves.

    Attributes:
        float32: floating-point operations in single precision, over all its processes.
        bfloat16: those in bfloat16.
        disk_bytes: bytes read from and written to stores and checkpoints.
        processes: processes, one an accelerator, that share the operations.
        cpu_s: seconds of one core, for what no accelerator takes part in.
        tf32: floating-point operations in TF32.
        float16: those in float16.
        devices: accelerators of each process, where models are spread over several: they take turns.
    """

    float32: float = 0.0
    bfloat16: float = 0.0
    disk_bytes: float = 0.0
    processes: int = 1
    cpu_s: float = 0.0
    tf32: float = 0.0
    float16: float = 0.0
    devices: int = 1

    @property
    def flops(self) -> float:
        """Floating-point operations of all precisions."""
        return self.float32 + self.bfloat16 + self.tf32 + self.float16

    def adding(self, flops: float, precision: str) -> "Work":
        """Return the work with operations in a number format added."""
        return self._replace(**{precision: getattr(self, precision) + flops})


@dataclass(frozen=True)
class Hardware:
    """What an experiment runs on.

    Attributes:
        accelerator: its name; `cpu` has no device memory of its own.
        peak: what it computes at most.
        utilisation: the part of the peak that is reached.
        read_bytes_per_s: what the file system delivers to a job.
    """

    accelerator: str
    peak: Peak
    utilisation: float
    read_bytes_per_s: float

    @property
    def accelerated(self) -> bool:
        """Whether tensors lie in a memory of their own."""
        return self.accelerator != CPU

    def hours(self, work: Work) -> float:
        """Return a job's hours: its start, the longer of computing and moving data, which run together, and the rest.

        Computing takes FLOPs / (peak x utilisation x processes), in each precision one after the other; moving
        takes bytes / rate; the rest is what one core of the CPU does.

        Raises:
            ConfigError: the work is in bfloat16, which the accelerator does not compute.
        """
        if work.bfloat16 and self.peak.bfloat16 is None:
            raise ConfigError(
                f"accelerator '{self.accelerator}' computes no bfloat16; set `precision` of the variants and of"
                " `attribution` to float32, and `loading.dtype` of suites to float16 or float32, or choose another"
                " accelerator"
            )
        parts: dict[str, float] = {
            precision: getattr(work, precision) for precision in ("float32", "bfloat16", "tf32", "float16")
        }
        seconds = sum(flops / self.peak.rate(precision) for precision, flops in parts.items())
        compute_s = seconds / (self.utilisation * work.processes)
        return (STARTUP_S + max(compute_s, work.disk_bytes / self.read_bytes_per_s) + work.cpu_s) / 3600


def hardware_named(accelerator: str, utilisation: float, read_gb_per_s: float, flops: float | None = None) -> Hardware:
    """Return hardware by the accelerator's name, or by a peak that is given.

    Args:
        accelerator: one of `ACCELERATORS`, or `cpu`.
        utilisation: the part of the peak that is reached, above 0 and at most 1.
        read_gb_per_s: what the file system delivers to a job, in GB (10^9 bytes) a second.
        flops: peak FLOP/s for both precisions, in place of the table's.

    Raises:
        ConfigError: a value is out of range, or the peak is not known.
    """
    if not 0 < utilisation <= 1:
        raise ConfigError(f"--utilisation {utilisation} is no part of the peak; give more than 0 and at most 1")
    for flag, value in (("--read-gb-per-s", read_gb_per_s), ("--flops", flops)):
        if value is not None and not 0 < value < inf:
            raise ConfigError(f"{flag} {value:g} is no rate; give a finite number above 0")
    if flops is None and accelerator not in ACCELERATORS:
        raise ConfigError(
            f"--accelerator '{accelerator}' has no known peak; give it in FLOP/s with --flops, or choose from"
            f" {', '.join(ACCELERATORS)}"
        )
    peak = ACCELERATORS[accelerator] if flops is None else Peak(flops, flops, flops, flops)
    return Hardware(accelerator, peak, utilisation, read_gb_per_s * 1e9)
