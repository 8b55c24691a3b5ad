"""Which GPU a job gets: one file lock per device, held by the job's process.

Snakemake counts `gpu` resources but does not know which device is free. A lock does, is shared between checkouts
of one user on one machine, and is gone as soon as its holder is, even after kill -9.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

log = logging.getLogger(__name__)


def visible_devices() -> list[str]:
    """Identifiers of the devices this process may use; CUDA itself is not touched.

    None for a torch whose version says that it was built for CPUs. CUDA_VISIBLE_DEVICES, if set, is respected as it is;
    otherwise the driver is asked. It names whole devices: slices of one (MIG) are used only where that variable lists
    them.
    """
    if _built_for_cpus():
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() and name.strip() != "-1"]
    try:
        import pynvml

        pynvml.nvmlInit()
        return [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # no driver, no library: every failure here means "no GPU"
        return []


def _built_for_cpus() -> bool:
    return metadata.version("torch").endswith("+cpu")


@contextlib.contextmanager
def gpu_slot(devices: list[str], *, per_device: int = 1, poll: float = 0.2) -> Iterator[str | None]:
    """Hold a free slot on one of `devices` and make it the only visible one; enter before CUDA starts.

    Without devices there is nothing to choose, and with one under SLURM the scheduler has chosen already.
    """
    slurm = os.environ.get("SLURM_JOB_ID")
    if not devices or (slurm and len(devices) == 1):
        yield os.environ.get("CUDA_VISIBLE_DEVICES")
        return
    # Two allocations on one node may number different devices alike.
    folder = Path(tempfile.gettempdir()) / "-".join(filter(None, (f"gpu-slots-{os.getuid()}", slurm)))
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor, device = _acquire(folder, devices, per_device, poll)
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
        yield device
    finally:
        os.close(descriptor)
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _acquire(folder: Path, devices: list[str], per_device: int, poll: float) -> tuple[int, str]:
    waiting = False
    while True:
        # Slot by slot over all devices, so that a second job goes to an idle device first.
        for slot in range(per_device):
            for device in devices:
                descriptor = os.open(folder / f"{device.replace('/', '_')}.{slot}.lock", os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return descriptor, device
                except BlockingIOError:
                    os.close(descriptor)
        if not waiting:
            log.info("waiting for a free GPU among %s", ", ".join(devices))
            waiting = True
        time.sleep(poll)
