"""Emulated bf16 products: what rounding of operands and results gives, forward and backward, and nothing else."""

import pytest
import torch
from torch.nn import functional

from harness import products
from harness.compute import Compute, ComputeSettings, choose, describe
from harness.products import PRODUCTS, RoundedProducts


def half(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


@pytest.mark.parametrize(
    "product",
    [
        lambda: half(5, 7) @ half(7, 3),
        lambda: half(2, 5, 7) @ half(2, 7, 3),
        lambda: torch.addmm(half(3), half(5, 7), half(7, 3)),
        lambda: torch.baddbmm(half(2, 5, 3), half(2, 5, 7), half(2, 7, 3)),
        lambda: functional.conv1d(half(2, 3, 9), half(4, 3, 2)),
    ],
    ids=["mm", "bmm", "addmm", "baddbmm", "convolution"],
)
def test_a_product_is_the_fp32_product_rounded(product, monkeypatch):
    with RoundedProducts():
        found = product()
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda value: value.to(torch.bfloat16).float())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found.float(), product().bfloat16())


def test_attention_is_that_of_fp32_rounded_and_its_gradients_too():
    inputs = [tensor.clone().requires_grad_() for tensor in half(3, 2, 2, 6, 8)]
    wide = [tensor.detach().float().requires_grad_() for tensor in inputs]
    with RoundedProducts():
        found = functional.scaled_dot_product_attention(*inputs)
        found.float().square().sum().backward()
    expected = functional.scaled_dot_product_attention(*wide)
    expected.square().sum().backward()
    assert torch.equal(found, expected.bfloat16())
    for one, other in zip(inputs, wide, strict=True):
        assert one.grad.dtype == torch.bfloat16
        torch.testing.assert_close(one.grad.float(), other.grad, rtol=0.03, atol=0.06)


def test_autocast_inside_rounds_forward_and_backward():
    """One linear layer: the weights' gradient is the product of rounded factors, rounded."""
    layer, x = torch.nn.Linear(6, 4, bias=False), torch.randn(9, 6)
    compute = Compute(precision="bf16", emulated=True)
    with compute.products():
        with compute.autocast():
            y = layer(x)
        y.float().sum().backward()
    weight, rounded_x = (value.detach().bfloat16().float() for value in (layer.weight, x))
    assert torch.equal(y.float(), (rounded_x @ weight.T).bfloat16().float())
    assert torch.equal(layer.weight.grad, (torch.ones(4, 9) @ rounded_x).bfloat16().float())


def test_torch_multiplies_the_same_values():
    """Torch's own bf16 products differ in the order of their sums: by one unit in the last place."""
    x, y = half(40, 64), half(64, 30)
    with RoundedProducts():
        found = x @ y
    torch.testing.assert_close(found, x @ y, rtol=2**-7, atol=1e-2)


def test_other_types_and_other_operations_are_left_alone():
    x = torch.randn(4, 4)
    expected = x @ x
    with RoundedProducts():
        assert torch.equal(x @ x, expected)
        assert (x @ x).dtype == torch.float32 and (x.double() @ x.double()).dtype == torch.float64
        assert (half(3) + half(3)).dtype == torch.bfloat16


def test_every_product_takes_the_tensor_that_decides_first():
    assert all(operation._schema.arguments[0].type.kind() == "TensorType" for operation in PRODUCTS)


@pytest.mark.parametrize(
    ("precision", "native", "emulated"), [("bf16", False, True), ("bf16", True, False), ("fp32", False, False)]
)
def test_only_a_processor_without_bf16_emulates(precision, native, emulated, monkeypatch):
    monkeypatch.setattr("harness.compute.native_bf16", lambda: native)
    threads, matmul = torch.get_num_threads(), torch.get_float32_matmul_precision()
    found = choose(ComputeSettings(device="cpu", precision=precision))
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(matmul)
    assert found.emulated is emulated
    assert describe(found)["emulated_products"] is emulated
    assert ("emulated" in found.arithmetic()) is emulated


@pytest.mark.parametrize(
    ("flags", "expected"), [("fma avx2", False), ("avx2 avx512_bf16", True), ("amx_bf16 amx_tile", True)]
)
def test_the_processor_says_whether_it_has_them(flags, expected, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(products, "Path", lambda _: tmp_path / "cpuinfo")
    assert products.native_bf16() is expected
    monkeypatch.setattr(products, "Path", lambda _: tmp_path / "missing")
    assert products.native_bf16() is False
