"""A second process that does one piece of work each time it is asked, for settings that hold for a whole process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from benchmarks.measuring.timing import Cost, cost_of


class Worker:
    """Calls are costs measured inside the other process; it waits in between and takes no processor time."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self) -> Cost:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process {' '.join(map(str, self._process.args))} ended early")
        return Cost(*json.loads(answer))

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None):
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(call: Callable[[], Any]) -> None:
    """Answer every line on standard input with the cost of one call."""
    for _ in sys.stdin:
        print(json.dumps(cost_of(call)), flush=True)
