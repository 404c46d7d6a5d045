"""The kernels of sparse codes, Triton's on a GPU, in bfloat16 against the dense products that they stand in for."""

from collections.abc import Iterator
from importlib.util import find_spec

from kernels import dense_products, kth_largest, least_seconds, make_problem, parts_of_step, whole_steps

from chronocoder.devices import default_device
from on_gpu.measured import Budget, Row, Setting

STAND_FOR = {"sum_rows (decode)": "dense decode", "dot_rows": "dense gradient of code"}


def measure(setting: Setting, budget: Budget) -> Iterator[Row]:
    """Yield the time of each dense product, of each part of a sparse step, and of whole steps.

    Raises:
        ModuleNotFoundError: there is a GPU, but no Triton.
    """
    device = default_device()
    arguments = setting.arguments(device.type)
    if device.type == "cuda" and find_spec("triton") is None:
        raise ModuleNotFoundError("triton is not installed: sparse products take PyTorch's slower gathers")
    problem = make_problem(arguments)
    scores = (problem.x @ problem.W_enc.detach().T).float() * problem.norms.float()
    guess = kth_largest(scores, arguments.k * len(problem.x))
    products, steps = dense_products(problem), whole_steps(problem, arguments.k, guess)
    runs = products | parts_of_step(problem, arguments.k, guess) | steps
    seconds = least_seconds(runs, device, setting.rounds, budget.ends)
    five = sum(seconds[name] for name in products)
    dense = dict.fromkeys(steps, ("five dense products", five))
    dense |= {name: (product, seconds[product]) for name, product in STAND_FOR.items()}
    for name, figure in seconds.items():
        against, limit = dense.get(name, ("", None))
        yield Row(name, 1e3 * figure, "ms", against, None if limit is None else limit / figure)
