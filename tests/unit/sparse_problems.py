"""Sparse products and their dense versions, on any device; without pytest, which a machine with a GPU may lack."""

from collections.abc import Callable

import torch
from torch import Tensor

from chronocoder.crosscoder import sparse
from chronocoder.crosscoder.sparse import active_where, dense_preactivations, sparse_decode, sparse_encode

# tokens, n, features, part of the entries that are active
SIZES = [(7, 13, 31, 0.2), (1, 5, 3, 0.7), (300, 9, 4, 0.9), (12, 600, 8, 0.3), (6, 4, 5, 1.0), (3, 8, 4, 0.0)]
NAMES = ("decoded", "W_enc", "b_enc", "W_dec")


def random_problem(size: tuple[int, int, int, float], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens, n, features, density = size
    mask = torch.rand(tokens, features, generator=generator) < density
    if tokens > 2:
        mask[1] = False  # a token without latents
    if features > 4:
        mask[:, 2] = False  # a latent without tokens
    shapes = {"x": (tokens, n), "W_enc": (features, n), "b_enc": (features,), "W_dec": (features, n), "to": (tokens, n)}
    tensors = {name: torch.randn(*shape, generator=generator).to(dtype) for name, shape in shapes.items()}
    return {**tensors, "mask": mask}


def results(problem: dict[str, Tensor], decode: Callable[..., Tensor]) -> dict[str, Tensor]:
    """Return the reconstruction and the gradients of its squared error."""
    weights = [problem[name].clone().requires_grad_() for name in NAMES[1:]]
    decoded = decode(problem["x"], *weights, problem["mask"])
    gradients = torch.autograd.grad((decoded - problem["to"]).pow(2).sum(), weights)
    return dict(zip(NAMES, (decoded, *gradients), strict=True))


def dense(x: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, mask: Tensor) -> Tensor:
    return ((x @ W_enc.T + b_enc) * mask) @ W_dec


def on_active(x: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, mask: Tensor) -> Tensor:
    active, preactivations = active_where(mask), dense_preactivations(x, W_enc, b_enc)
    return sparse_decode(sparse_encode(x, W_enc, b_enc, active, preactivations), active, W_dec)


def compare_triton_with_plain(device: str) -> None:
    """Compare the Triton kernels with the plain ones; on a CPU this needs Triton's interpreter."""
    from chronocoder.crosscoder import triton_kernels

    plain = sparse._plain_backend()
    small = [size for size in SIZES if size[0] < 100]
    for size in [*small, (270, 5, 2, 1.0)]:  # the last has segments of several pieces
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            problem = {name: tensor.to(device) for name, tensor in random_problem(size, dtype).items()}
            wide = torch.promote_types(dtype, torch.float32)
            active = active_where(problem["mask"])
            values = torch.randn(len(active.features)).to(device, dtype)
            by_feature = active.by_feature(len(problem["W_dec"]))
            by_token = (problem["W_dec"], active.features, values, active.offsets, dtype)
            gradient = (problem["x"], by_feature.tokens, values[by_feature.order], by_feature.offsets, wide)
            for arguments in (by_token, gradient):
                expected = plain.sum_rows(*arguments)
                tolerance = {"rtol": 1e-5, "atol": 1e-4} if expected.dtype == torch.float32 else {}
                torch.testing.assert_close(triton_kernels.sum_rows(*arguments), expected, **tolerance)
            expected = plain.dot_rows(problem["x"], problem["W_dec"], active)
            found = triton_kernels.dot_rows(problem["x"], problem["W_dec"], active)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


if __name__ == "__main__":
    compare_triton_with_plain("cpu")
