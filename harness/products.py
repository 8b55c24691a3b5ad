"""bf16 products on a processor without them: operands and results rounded to bf16, multiplied and summed in fp32.

That is what processors with bf16 products compute, up to the order of sums. Elsewhere torch has bf16 products with the
same values that are many times slower than fp32 ones; these cost an fp32 product and the rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
PRODUCTS = {
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.convolution.default,
    aten.convolution_backward.default,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
}
# Its second result, the logarithm of the softmax's denominator, is fp32 in every precision.
ATTENTION = aten._scaled_dot_product_flash_attention_for_cpu.default


def native_bf16() -> bool:
    """Whether this processor multiplies bf16 itself. Only Linux can say; elsewhere the answer is no."""
    path = Path("/proc/cpuinfo")
    return path.is_file() and bool({"avx512_bf16", "amx_bf16"} & set(path.read_text(encoding="utf-8").split()))


class RoundedProducts(TorchDispatchMode):
    """Inside, products of bf16 tensors on the CPU, forward and backward, are computed in fp32 and rounded to bf16.

    Everything else, and products of other types, stays as it is. Attention keeps its weights in fp32 between the two
    products, where a bf16 kernel would round them once more.
    """

    entered = 0  # how many are active in this process

    def __enter__(self) -> RoundedProducts:
        RoundedProducts.entered += 1
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        RoundedProducts.entered -= 1
        super().__exit__(*error)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        attention = func is ATTENTION
        if not (attention or func in PRODUCTS) or not _is_bf16_on_cpu(args[0]):
            return func(*args, **kwargs)
        found = func(*tree_map_only(torch.Tensor, _widened, args), **tree_map_only(torch.Tensor, _widened, kwargs))
        return (
            (found[0].bfloat16(), *found[1:])
            if attention
            else tree_map_only(torch.Tensor, torch.Tensor.bfloat16, found)
        )


def emulating() -> bool:
    """Whether products are emulated at the moment, which holds for the thread that began it."""
    return RoundedProducts.entered > 0


def _is_bf16_on_cpu(value: Any) -> bool:
    return value.dtype == torch.bfloat16 and value.device.type == "cpu"


def _widened(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.dtype == torch.bfloat16 else value
