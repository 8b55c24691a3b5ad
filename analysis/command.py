"""What every command line of the analysis does with a mistake: one `error:` line and exit code 1."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

Main = Callable[[Sequence[str] | None], int | None]


def run(main: Main, argv: Sequence[str] | None = None) -> int:
    """Call `main(argv)`; ValueError and OSError are a user's or a file's mistake, all else keeps its traceback.

    ALIGNDIFF_TRACEBACK=1 shows the traceback of both. (As `harness.cli`, which analysis may not import.)
    """
    try:
        code = main(argv) or 0
        sys.stdout.flush()  # here and not at exit, where a closed pipe could no longer be met quietly
        return code
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough; files are written before
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        if os.environ.get("ALIGNDIFF_TRACEBACK"):
            raise
        print(f"error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 1
