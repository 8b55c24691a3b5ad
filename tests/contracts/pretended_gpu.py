"""A GPU pretended on a CPU: tensors that say they are on cuda:0 and refuse to meet tensors of the CPU.

Every operation is computed on the CPU, so what is found is what mixes: devices of tensors, devices of generators, and
arrays made of tensors that a GPU holds. Nothing is learned about kernels, memory, speed or rounding. Where torch has an
NVIDIA GPU the same mistakes raise by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

GPU = torch.device("cuda", 0)
PACK = torch.ops.aten._pack_padded_sequence.default  # wants lengths on the CPU
COPIES = {PACK, torch.ops.aten.copy_.default}  # between devices, on a real GPU, too
INDEXING = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default}  # whose indices may be on the CPU
GRU = torch._C._VariableFunctions.gru


class OnGpu(torch.Tensor):
    """A tensor of the pretended device; `inner` holds its values on the CPU."""

    device = property(lambda self: GPU)
    is_cuda, is_cpu = property(lambda self: True), property(lambda self: False)

    def __new__(cls, inner: torch.Tensor) -> OnGpu:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, **layout)

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def numpy(self, *args: Any) -> None:
        raise TypeError("a tensor on cuda:0 is no array")

    __array__ = numpy

    def cpu(self) -> torch.Tensor:
        return self.inner.detach()

    def tolist(self) -> list:
        return self.inner.tolist()

    def __deepcopy__(self, memo: dict) -> OnGpu:
        return OnGpu(self.inner.detach().clone())

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: tuple, kwargs: dict) -> Any:
    """Run one operation on the CPU and hand its results to the device that they belong to.

    Raises RuntimeError where a GPU would: operands of both devices, but for numbers, COPIES and what INDEXING may.
    """
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    here = {id(each): each for each in tensors if not isinstance(each, OnGpu)}
    there = {id(each.inner): each for each in tensors if isinstance(each, OnGpu)}
    strict = [args[0], *args[2:3]] if func in INDEXING else [] if func in COPIES else here.values()
    if there and any(isinstance(each, torch.Tensor) and id(each) in here and each.dim() for each in strict):
        raise RuntimeError(f"{func}: a tensor of the CPU among those of cuda:0")
    on_gpu = bool(there) or torch.device(kwargs.get("device") or "cpu") == GPU
    args, kwargs = tree_map_only(OnGpu, lambda tensor: tensor.inner, (args, kwargs))
    if kwargs.get("device"):
        kwargs = kwargs | {"device": torch.device("cpu")}
    known = here | there  # an operation in place returns its operand

    def placed(tensor: torch.Tensor) -> torch.Tensor:
        return known.get(id(tensor), OnGpu(tensor) if on_gpu else tensor)

    out = func(*args, **kwargs)
    found = tree_map_only(torch.Tensor, placed, out)
    return (found[0], out[1]) if func is PACK else found


class _Move(torch.autograd.Function):
    """To the pretended device or back, with its gradient the other way."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, to_gpu: bool) -> torch.Tensor:
        ctx.to_gpu = to_gpu
        return OnGpu(tensor) if to_gpu else tensor.inner

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad.inner if ctx.to_gpu else OnGpu(grad), None


class _Generator(torch.Generator):
    """A generator that remembers for which device it was made."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        return super().__new__(cls, "cpu")

    def __init__(self, device: Any = "cpu") -> None:
        self._place = torch.device(device)

    device = property(lambda self: self._place)


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What is decided above single operations: generators, tensors made of numbers, recurrent networks."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        device, generator = torch.device(kwargs.get("device") or "cpu"), kwargs.get("generator")
        if generator is not None and generator.device.type != device.type:
            raise RuntimeError(f"a generator of {generator.device} draws for {device}")
        if func is torch.tensor and device == GPU:
            return OnGpu(torch.tensor(*args))
        if func is GRU and args[0].is_cuda:  # its kernel is one of the CPU's and turns shapes in place
            out = func(*tree_map_only(OnGpu, lambda tensor: _Move.apply(tensor, False), args))
            return tree_map_only(torch.Tensor, lambda tensor: _Move.apply(tensor, True), out)
        return func(*args, **kwargs)


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Within, torch takes the device that is given for a GPU."""
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch, "Generator", _Generator)
    monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
    with _Functions(), _Dispatch():
        yield GPU
