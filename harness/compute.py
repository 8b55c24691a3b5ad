"""Where and how precisely a run computes: device, precision, threads, allocator."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

import torch

from harness.products import RoundedProducts, native_bf16
from harness.settings import require

Precision = Literal["fp32", "tf32", "bf16"]


@dataclass(frozen=True)
class ComputeSettings:
    """The `compute` section of the configuration."""

    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU if there is one
    precision: Precision = "fp32"
    threads: int | None = None  # of torch on the CPU; null = what the environment says
    deterministic: bool = False  # refuse operations whose result varies from run to run on a GPU
    onednn: bool = False  # fp32 products through oneDNN: faster on AMD, lower precision on processors with AMX
    jobs_per_gpu: int = 1  # training jobs that may share one device

    def __post_init__(self) -> None:
        require(self.threads is None or self.threads >= 1, "threads", self.threads, "null or 1 or more")
        require(self.jobs_per_gpu >= 1, "jobs_per_gpu", self.jobs_per_gpu, "1 or more")


@dataclass(frozen=True)
class Compute:
    """A device and the precision of its matrix products.

    bf16 runs matrix products under autocast; weights, optimiser, losses and the scores that are ranked stay fp32, on a
    GPU recurrences, too (`recurrence.recur`).
    tf32 is a switch of the whole process: also products promised in fp32 above, and the scores that are ranked, are
    rounded then. `emulated`: the processor has no bf16 products and they are made of fp32 ones, see `products`.
    """

    device: torch.device = torch.device("cpu")
    precision: Precision = "fp32"
    emulated: bool = False

    def autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def products(self) -> AbstractContextManager[Any]:
        """Around all of a run, backward passes included: how products are made where the device lacks them."""
        return RoundedProducts() if self.emulated else contextlib.nullcontext()

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def arithmetic(self) -> list[Any]:
        """What of the device and its switches decides how a run rounds: no run is done half in one, half in another.

        Without processor model, thread count and versions: a run may be resumed on another machine.
        """
        switches = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
        emulated = ["emulated"] if self.emulated else []
        return [self.device.type, self.precision, *switches, *emulated]

    def peak_memory_bytes(self) -> int:
        """Most memory held so far: of the device on a GPU, of the process otherwise."""
        if self.is_cuda:
            return torch.cuda.max_memory_allocated(self.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def choose(settings: ComputeSettings) -> Compute:
    """Prepare the process and return its Compute.  Raises ValueError if a GPU is demanded and none is visible."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device: a GPU was demanded, or seen by the driver, but torch sees none (a driver too old for torch, or "
            "CUDA_VISIBLE_DEVICES); repair that, or set compute.device to 'cpu'"
        )
    use_cuda = settings.device != "cpu" and torch.cuda.is_available()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.allow_tf32 = settings.precision == "tf32"
    torch.set_float32_matmul_precision(_matmul_precision(settings, use_cuda=use_cuda))
    if not use_cuda:
        keep_freed_memory()
    emulated = settings.precision == "bf16" and not use_cuda and not native_bf16()
    return Compute(torch.device("cuda" if use_cuda else "cpu"), settings.precision, emulated)


def _matmul_precision(settings: ComputeSettings, *, use_cuda: bool) -> str:
    """torch's one switch for fp32 products: "high" is TF32 on a GPU, "medium" lets a CPU go through oneDNN."""
    if use_cuda:
        return "high" if settings.precision == "tf32" else "highest"
    return "medium" if settings.onednn else "highest"


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory instead of returning it to the kernel after every large tensor.

    The page faults of the default cost a DiffuRec training step about a quarter of its time on a CPU.
    Elsewhere (musl, macOS) nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL("libc.so.6")
    m_mmap_max, m_trim_threshold, m_top_pad = -4, -1, -2
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)
    libc.mallopt(m_top_pad, 512 << 20)


def describe(compute: Compute) -> dict[str, Any]:
    """Return the environment of a run for its record: versions, processor, device, switches."""
    packages = {name: metadata.version(name) for name in ("torch", "numpy")}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(compute.device) if compute.is_cuda else "cpu",
        "cuda": torch.version.cuda if compute.is_cuda else None,
        "precision": compute.precision,
        "emulated_products": compute.emulated,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        **packages,
    }


def rounds_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether what the configuration decides of two environments of `describe` makes runs round alike.

    Processor models and versions may differ, as in a folder of results in which Snakemake finds nothing to do.
    """
    deciding = ["precision", "emulated_products", "deterministic_algorithms", "float32_matmul_precision"]
    if "cpu" in (one["device"], other["device"]):
        deciding += ["device", "threads"]
    return all(one[name] == other[name] for name in deciding)


def _cpu_model() -> str:
    """Name of the processor with family and model, as some machines call several generations by one name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            first = file.read().partition("\n\n")[0]
    except OSError:
        return platform.processor() or "unknown"
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    name = facts.get("model name") or platform.processor() or "unknown"
    return f"{name} (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else name


@contextlib.contextmanager
def evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """Switch dropout off inside, and put the module back as it was."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
