"""What every command line does with an error: one line for the user's mistakes, a traceback for ours."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.digest import ROOT

Main = Callable[[Sequence[str] | None], int | None]


def run(main: Main, argv: Sequence[str] | None = None) -> int:
    """Call `main(argv)` and return its exit code; a user's or a file's mistake becomes one `error:` line.

    ValueError and OSError are mistakes of that kind, by the convention of this repository; everything else
    is a bug and keeps its traceback. A library may raise a ValueError, too, for a tensor of the wrong shape in a new
    method: the line then ends with the place. ALIGNDIFF_TRACEBACK=1 shows the traceback of all.
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
        print(f"error: {one_line(error)}{_place(error)}", file=sys.stderr)
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


def _place(error: BaseException) -> str:
    """The last line of this repository on the way to a library's ValueError; empty for what a `raise` of ours said."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _is_ours(Path(frame.filename))]
    if isinstance(error, OSError) or not ours or (ours[-1].line or "raise").startswith("raise"):
        return ""
    path = Path(ours[-1].filename).relative_to(ROOT)
    return f" (at {path}:{ours[-1].lineno}; ALIGNDIFF_TRACEBACK=1 shows the whole way there)"


def _is_ours(path: Path) -> bool:
    return path.is_relative_to(ROOT) and not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
