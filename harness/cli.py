"""What every command line does with an error: one line for the user's mistakes, a traceback for ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

Main = Callable[[Sequence[str] | None], int | None]


def run(main: Main, argv: Sequence[str] | None = None) -> int:
    """Call `main(argv)` and return its exit code; a user's or a file's mistake becomes one `error:` line.

    ValueError and OSError are mistakes of that kind, by the convention of this repository; everything else
    is a bug and keeps its traceback. ALIGNDIFF_TRACEBACK=1 shows the traceback of both.
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
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130


def one_line(error: BaseException) -> str:
    """Return an error as a single line: for system errors the file first, then what happened to it."""
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename is not None else ""
        return f"{name}{error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
