"""Readers: from a raw file of any supported format to coded interactions.

Each reader is fast on good files and reads once. Only when something is wrong is the file read a second time,
line by line, to name the line. Text is UTF-8; blank lines are skipped; nothing is ever unpickled.
"""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.archive import open_bytes
from harness.settings import nearest

CHUNK_ROWS = 2_000_000


@dataclass(frozen=True)
class Interactions:
    """Actions in file order, users and items coded 0, 1, ... by first appearance in the file.

    user_N, item_N: int32 [N]
    time_N:         float64 [N], or None where the file is already in chronological order for each user
    user_labels, item_labels: the file's own names; code c is called labels[c]
    """

    user_N: NDArray[np.int32]
    item_N: NDArray[np.int32]
    time_N: NDArray[np.float64] | None
    user_labels: list[str]
    item_labels: list[str]

    def __len__(self) -> int:
        return len(self.user_N)


class Codes:
    """Numbers labels by first appearance."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def add(self, label: str) -> int:
        return self.of.setdefault(label, len(self.of))

    def add_column(self, column: pd.Series) -> NDArray[np.int32]:
        """Code a column; only its distinct labels pass through Python."""
        code_N, labels = pd.factorize(column.to_numpy())
        return np.array([self.add(str(label)) for label in labels], dtype=np.int32)[code_N]


@dataclass(frozen=True)
class Layout:
    """A delimited text format: which field holds what, and what a line must look like."""

    separator: str
    expected: str
    width: int  # fields per line
    user: int
    item: int
    time: int
    numbers: tuple[int, ...]  # fields that must be finite numbers
    empty: tuple[int, ...] = ()  # fields that must be empty ("::" is read as ":" twice)
    whole_ids: bool = False
    header_lines: int = 0

    def problem(self, line: str) -> str | None:
        """Say what is wrong with one line, or None."""
        fields = line.split(self.separator)
        if len(fields) != self.width or any(fields[position] for position in self.empty):
            return "wrong number of fields"
        for position in (self.user, self.item):
            if not is_label(fields[position], whole=self.whole_ids):
                return f"{fields[position]!r} is not {'a whole number' if self.whole_ids else 'an id'}"
        for position in self.numbers:
            if not is_number(fields[position], least=0 if position == self.time else -math.inf):
                kind = "a timestamp (seconds, 0 or later)" if position == self.time else "a number"
                return f"{fields[position]!r} is not {kind}"
        return None


def is_label(text: str, *, whole: bool = False) -> bool:
    if whole:
        return text.isascii() and text.isdigit()
    return bool(text) and text == text.strip() and text.isprintable()


def is_number(text: str, *, least: float = -math.inf) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and value >= least


MOVIELENS_DAT = Layout(
    ":", "user::item::rating::timestamp", 7, 0, 2, 6, numbers=(4, 6), empty=(1, 3, 5), whole_ids=True
)
MOVIELENS_TAB = Layout("\t", "user<tab>item<tab>rating<tab>timestamp", 4, 0, 1, 3, (2, 3), whole_ids=True)
AMAZON_RATINGS = Layout(",", "user,item,rating,timestamp", 4, 0, 1, 3, (2, 3))


def read_movielens_dat(path: Path, member: str | None = None) -> Interactions:
    """Read `user::item::rating::timestamp` (MovieLens-1M ratings.dat)."""
    return _read_delimited(path, member, MOVIELENS_DAT)


def read_movielens_tab(path: Path, member: str | None = None) -> Interactions:
    """Read user, item, rating, timestamp separated by tabs (MovieLens-100K u.data)."""
    return _read_delimited(path, member, MOVIELENS_TAB)


def read_amazon_ratings(path: Path, member: str | None = None) -> Interactions:
    """Read `user,item,rating,timestamp` without a header (Amazon ratings CSV)."""
    return _read_delimited(path, member, AMAZON_RATINGS)


def read_inter(path: Path, member: str | None = None) -> Interactions:
    """Read a RecBole .inter file: tab-separated, with user_id, item_id and timestamp in its header."""
    with open_bytes(path, member) as stream:
        header = stream.readline(1 << 16).decode("utf-8-sig", errors="replace").rstrip("\r\n").split("\t")
    columns = [name.partition(":")[::2] for name in header]
    names = [name for name, _ in columns]
    for name, kind in (("user_id", "token"), ("item_id", "token"), ("timestamp", "float")):
        if columns.count((name, kind)) != 1 or names.count(name) != 1:
            raise ValueError(
                f"{path}, line 1: expected tab-separated columns name:type with {name}:{kind} among them, "
                f"got {' '.join(header)[:80]!r}"
            )
    time = names.index("timestamp")
    layout = Layout(
        "\t",
        expected="<tab>".join(names),
        width=len(names),
        user=names.index("user_id"),
        item=names.index("item_id"),
        time=time,
        numbers=(time,),
        header_lines=1,
    )
    return _read_delimited(path, member, layout)


class CountedSeparators(io.RawIOBase):
    """A stream that counts one byte as it is read: the C parser itself forgives surplus empty fields."""

    def __init__(self, stream: IO[bytes], separator: str) -> None:
        self.stream, self.separator, self.count = stream, separator.encode(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self.stream.readinto(buffer)  # type: ignore[attr-defined]
        self.count += bytes(buffer[:size]).count(self.separator)
        return size


def _read_delimited(path: Path, member: str | None, layout: Layout) -> Interactions:
    try:
        with open_bytes(path, member) as stream:
            for _ in range(layout.header_lines):
                stream.readline()
            return _parse_delimited(stream, layout)
    except (ValueError, OverflowError, pd.errors.ParserWarning) as error:  # pandas' too
        _name_bad_line(path, member, layout)
        raise ValueError(f"{path}: {error}; expected lines of {layout.expected}") from error


def _parse_delimited(stream: IO[bytes], layout: Layout) -> Interactions:
    """Read with the C parser, in chunks so that ids exist as text only for a part of the rows at a time."""
    types: dict[int, Any] = dict.fromkeys(range(layout.width), object)
    types |= dict.fromkeys((layout.user, layout.item), "int64" if layout.whole_ids else object)
    types |= dict.fromkeys(layout.numbers, "float64")
    counted = CountedSeparators(stream, layout.separator)
    users, items = Codes(), Codes()
    parts: list[tuple[NDArray[Any], ...]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        for chunk in pd.read_csv(
            io.BufferedReader(counted, 1 << 18),
            sep=layout.separator,
            header=None,
            names=range(layout.width),
            index_col=False,
            dtype=types,
            na_filter=False,
            quoting=csv.QUOTE_NONE,
            encoding="utf-8-sig",
            chunksize=CHUNK_ROWS,
        ):
            _check_values(chunk, layout)
            codes = users.add_column(chunk[layout.user]), items.add_column(chunk[layout.item])
            parts.append((*codes, chunk[layout.time].to_numpy()))
    user_N, item_N, time_N = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if counted.count != len(user_N) * (layout.width - 1):
        raise ValueError("wrong number of fields in some line")
    if not all(is_label(label, whole=layout.whole_ids) for names in (users.of, items.of) for label in names):
        raise ValueError("an id is empty or malformed")
    return Interactions(user_N, item_N, time_N, list(users.of), list(items.of))


def _check_values(chunk: pd.DataFrame, layout: Layout) -> None:
    for position in layout.empty:
        if (chunk[position].to_numpy() != "").any():
            raise ValueError("wrong separator in some line")
    for position in layout.numbers:
        if not np.isfinite(chunk[position].to_numpy()).all():
            raise ValueError("a number is missing or not finite")
    if (chunk[layout.time].to_numpy() < 0).any():
        raise ValueError("a timestamp is negative")


def _name_bad_line(path: Path, member: str | None, layout: Layout) -> None:
    """Raise ValueError for the first malformed line; return if there is none."""
    expected = layout.expected
    with open_bytes(path, member) as stream:
        for number, raw in enumerate(stream, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise ValueError(f"{path}, line {number}: is not UTF-8 text; expected {expected}") from None
            if number > layout.header_lines and line and (reason := layout.problem(line)) is not None:
                remedy = "; remove the header line" if line == expected else ""
                raise ValueError(f"{path}, line {number}: {reason}; expected {expected}, got {line[:80]!r}{remedy}")


def read_amazon_reviews(path: Path, member: str | None = None) -> Interactions:
    """Read Amazon reviews: one JSON object per line with reviewerID, asin and unixReviewTime."""
    users, items = Codes(), Codes()
    user_N, item_N, time_N = array("i"), array("i"), array("d")
    with open_bytes(path, member) as stream:
        for number, line in enumerate(stream, start=1):
            if line.isspace():
                continue
            try:
                record = json.loads(line)
                user, item, time = record["reviewerID"], record["asin"], record["unixReviewTime"]
                if not (is_label(user) and is_label(item) and is_number(time, least=0)):
                    raise ValueError("an id or a timestamp out of range")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path}, line {number}: expected a JSON object with reviewerID, asin (text) and "
                    f"unixReviewTime (seconds, 0 or later), got {line[:80]!r}"
                ) from error
            user_N.append(users.add(user))
            item_N.append(items.add(item))
            time_N.append(float(time))
    return _coded(user_N, item_N, np.array(time_N), users, items)


def read_sequences(path: Path, member: str | None = None) -> Interactions:
    """Read `user item item ...`, oldest item first, one line per user, ids whole numbers from 1."""
    users, items = Codes(), Codes()
    user_N, item_N = array("i"), array("i")
    with open_bytes(path, member) as stream:
        for number, line in enumerate(stream, start=1):
            tokens = line.decode("utf-8", errors="replace").split()
            if not tokens:
                continue
            if len(tokens) < 2 or not all(is_label(token, whole=True) and int(token) > 0 for token in tokens):
                raise ValueError(
                    f"{path}, line {number}: expected 'user item item ...', whole numbers from 1, got {line[:80]!r}"
                )
            if tokens[0] in users.of:
                raise ValueError(f"{path}, line {number}: expected one line per user, but user {tokens[0]} comes again")
            user_N.extend([users.add(tokens[0])] * (len(tokens) - 1))
            item_N.extend([items.add(token) for token in tokens[1:]])
    return _coded(user_N, item_N, None, users, items)


def _coded(
    user_N: array, item_N: array, time_N: NDArray[np.float64] | None, users: Codes, items: Codes
) -> Interactions:
    code = np.int32
    return Interactions(np.array(user_N, code), np.array(item_N, code), time_N, list(users.of), list(items.of))


Reader = Callable[[Path, str | None], Interactions]

FORMATS: Final[dict[str, Reader]] = {
    "amazon-reviews": read_amazon_reviews,
    "amazon-ratings": read_amazon_ratings,
    "movielens-dat": read_movielens_dat,
    "movielens-tab": read_movielens_tab,
    "inter": read_inter,
    "sequences": read_sequences,
}


def read_interactions(path: str | Path, *, format: str, member: str | None = None) -> Interactions:
    """Read a raw file. Raises ValueError naming the file, and the line if one is malformed."""
    if format not in FORMATS:
        raise ValueError(f"format {format!r}{nearest(format, FORMATS)}: legal values are {', '.join(FORMATS)}")
    path = Path(path)
    with open_bytes(path, member) as stream:
        if not stream.read(1):
            raise ValueError(f"{path}: is empty; expected interactions in the format {format!r}")
    interactions = FORMATS[format](path, member)
    if not len(interactions):
        raise ValueError(f"{path}: holds no interactions; expected the format {format!r}")
    return interactions
