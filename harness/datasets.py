"""What config/datasets.yaml says about one dataset, checked."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.settings import from_mapping, require

DIGEST_LENGTH = {"sha256": 64, "md5": 32}
PLACE_KEYS = ("digest", "bytes", "member", "format")
# What of an entry decides neither its raw file nor its sequences, and what does not decide the raw file.
SHOWN_ONLY = ("display", "licence")
AFTER_DOWNLOAD = ("filter", "deduplicate", "expected", "community_fingerprint")


@dataclass(frozen=True)
class Address:
    """One place that serves the raw file, and what the file from there looks like."""

    url: str
    digest: str | None = None  # "sha256:..." or "md5:..."; None where nobody has published one
    bytes: int | None = None
    member: str | None = None  # the file to read if a zip archive is served
    format: str | None = None  # a key of harness.interactions.FORMATS

    def __post_init__(self) -> None:
        if self.digest is not None:
            kind, _, value = self.digest.partition(":")
            legal = len(value) == DIGEST_LENGTH.get(kind) and re.fullmatch("[0-9a-f]+", value) is not None
            require(legal, "digest", self.digest, "'sha256:' or 'md5:' followed by lower-case hexadecimal digits")

    @property
    def file_name(self) -> str:
        return self.url.split("?")[0].rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Filter:
    """The k-core a dataset is reduced to; 0 keeps everything."""

    min_user: int = 0  # least actions per user
    min_item: int = 0  # least actions per item

    def __post_init__(self) -> None:
        require(self.min_user >= 0, "min_user", self.min_user, "0 and larger")
        require(self.min_item >= 0, "min_item", self.min_item, "0 and larger")


@dataclass(frozen=True)
class Expected:
    """Published counts after the filter; other counts are an error."""

    users: int
    items: int
    actions: int


@dataclass(frozen=True)
class DatasetSpec:
    """One entry of config/datasets.yaml. Each address carries its own digest, member and format."""

    display: str
    format: str
    urls: tuple[Address, ...] = ()
    digest: str | None = None
    bytes: int | None = None
    member: str | None = None
    file: str | None = None
    filter: Filter = Filter()
    deduplicate: bool = False
    expected: Expected | None = None
    community_fingerprint: str | None = None
    licence: str = ""

    @classmethod
    def from_mapping(cls, name: str, values: Mapping[str, Any]) -> DatasetSpec:
        """Check a mapping read from YAML or JSON. Raises ValueError naming dataset and key."""
        where = f"datasets.{name}"
        nested = {key: values[key] for key in ("urls", "filter", "expected") if values.get(key) is not None}
        flat = {key: value for key, value in values.items() if key not in ("urls", "filter", "expected")}
        spec = from_mapping(cls, flat, where=where)
        if isinstance(nested.get("urls", ()), str | Mapping):
            raise ValueError(f"{where}.urls: expected a list of addresses, each after a dash")
        try:
            urls = tuple(_address(entry, spec, f"{where}.urls") for entry in nested.get("urls", ()))
            kept = from_mapping(Filter, nested.get("filter"), where=f"{where}.filter")
            expected = nested.get("expected")
            counts = None if expected is None else from_mapping(Expected, expected, where=f"{where}.expected")
        except TypeError as error:  # no list where one belongs
            raise ValueError(f"{where}: {error}") from None
        return dataclasses.replace(spec, urls=urls, filter=kept, expected=counts)

    def raw_path(self, name: str, raw_dir: str | Path) -> Path:
        """Return where the raw file is: the configured local file, or its place among the downloads."""
        if self.file is not None:
            return Path(self.file)
        if not self.urls:
            raise ValueError(f"datasets.{name}: set 'file' to a local file, or 'urls' to where it can be had")
        return Path(raw_dir) / name / self.urls[0].file_name


def _address(entry: str | Mapping[str, Any], spec: DatasetSpec, where: str) -> Address:
    """Build an address; what an entry does not say itself, it takes from the dataset."""
    own = {"url": entry} if isinstance(entry, str) else dict(entry)
    if "url" not in own:
        raise ValueError(f"{where}: each entry is an address, or a mapping with the key 'url'")
    return from_mapping(Address, {key: getattr(spec, key) for key in PLACE_KEYS} | own, where=where)


def deciding(name: str, entry: Mapping[str, Any], *, raw_file: bool) -> dict[str, Any]:
    """An entry without what decides nothing about its sequences (raw_file: about its raw file); the label is `name`.

    So that a change of the rest fetches nothing again and trains nothing again.
    """
    left_out = SHOWN_ONLY + (AFTER_DOWNLOAD if raw_file else ())
    return {key: value for key, value in entry.items() if key not in left_out} | {"display": name}


def check_mirror(folder: str | Path | None) -> None:
    """Raise ValueError if a mirror folder is configured and does not exist."""
    if folder is not None and not Path(folder).is_dir():
        raise ValueError(f"mirror: the folder {folder} does not exist; correct or remove the config key mirror")


def digest_of(path: str | Path, kind: str) -> str:
    """Return the digest of a file as configured: 'sha256:...' or 'md5:...'."""
    with open(path, "rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"


def matching_address(path: str | Path, addresses: tuple[Address, ...]) -> Address | None:
    """Return the address whose digest `path` has; failing that, one without a published digest; else None."""
    found = {kind: digest_of(path, kind) for kind in DIGEST_LENGTH}
    for address in addresses:
        if address.digest in found.values():
            return address
    return next((address for address in addresses if address.digest is None), None)
