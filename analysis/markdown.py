"""Generated parts of hand-written Markdown files."""

from __future__ import annotations

from pathlib import Path

from harness.record import write_text_atomically


def put_between(path: Path, begin: str, end: str, part: str) -> None:
    """Replace what stands between two marks of a file.  Raises ValueError, naming the file, without both marks."""
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{path}: the marks {begin} and {end} are missing; put them where the part belongs")
    write_text_atomically(path, f"{before}{begin}\n\n{part}\n\n{end}{after}")
