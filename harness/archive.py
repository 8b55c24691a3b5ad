"""Raw files as streams: plain, gzip, or one member of a zip archive. Nothing is ever unpacked to disk."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

MAX_MEMBER_BYTES = 16 * 2**30  # a zip archive that announces more is refused before a byte is read


@contextmanager
def open_bytes(path: str | Path, member: str | None = None) -> Iterator[IO[bytes]]:
    """Open `path` for reading, decompressed; its content decides how, not its name.

    member: the entry to read if the file is a zip archive (a Python wheel is one); otherwise unused.

    Raises ValueError on a damaged or truncated archive, also if that shows while the caller reads.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(0)
            if start == b"PK\x03\x04":
                with (
                    zipfile.ZipFile(file) as archive,
                    archive.open(_checked(archive, path, member)) as stream,
                ):
                    yield stream
            elif start[:2] == b"\x1f\x8b":
                with gzip.open(file, "rb") as stream:
                    yield io.BufferedReader(stream, 1 << 18)  # type: ignore[arg-type]
            else:
                yield file
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: damaged or truncated archive ({error}); delete it and fetch it again") from error


def _checked(archive: zipfile.ZipFile, path: Path, member: str | None) -> zipfile.ZipInfo:
    """Return the archive's entry for `member`, if that is a name and a size we are ready to read."""
    if member is None:
        raise ValueError(f"{path}: is a zip archive, so the dataset needs the key 'member': the file to read in it")
    parts = PurePosixPath(member).parts
    if member.startswith("/") or "\\" in member or ".." in parts or not parts:
        raise ValueError(f"member {member!r}: must be a relative path inside the archive, without '..'")
    try:
        entry = archive.getinfo(member)
    except KeyError:
        names = ", ".join(archive.namelist()[:5])
        raise ValueError(f"{path}: has no member {member!r}; it begins with {names}") from None
    if entry.flag_bits & 1:
        raise ValueError(f"{path}: member {member!r} is encrypted")
    if entry.file_size > MAX_MEMBER_BYTES:
        raise ValueError(f"{path}: member {member!r} announces {entry.file_size} bytes, limit {MAX_MEMBER_BYTES}")
    return entry
