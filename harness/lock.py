"""One process at a time per run: a training that outlived a killed Snakemake still writes its files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # file systems that are mounted without them


@contextlib.contextmanager
def sole_writer(folder: Path, *, poll: float = 0.5) -> Iterator[bool]:
    """Hold the lock of `folder` inside; yield whether another process had to be waited for.

    The kernel frees the lock as soon as its holder is gone, also after kill -9.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, waited = folder / ".lock", False
    while (descriptor := _acquire(path)) is None:
        if not waited:
            log.warning("%s: another process is writing this run; waiting for it to end", folder)
        waited = True
        time.sleep(poll)
    try:
        yield waited
    finally:
        path.unlink(missing_ok=True)  # while held, so that nobody holds a lock on a file that is gone
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Say whether a process is writing the run of `folder` now."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False  # nobody can tell
    finally:
        os.close(descriptor)


def _acquire(path: Path) -> int | None:
    """Return a descriptor that holds the lock, or None while somebody else does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The holder before us may have removed the file between our opening and locking it.
        if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
            os.utime(path)  # the file may be a killed process's; its date says since when ours runs
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:
        if error.errno not in NO_LOCKS:
            os.close(descriptor)
            raise
        log.warning("%s: this file system has no locks; start no run twice at a time", path.parent)
        return descriptor
    os.close(descriptor)
    return None
