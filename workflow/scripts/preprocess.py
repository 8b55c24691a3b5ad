"""Turn one raw file into sequences, id lists and statistics."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import cli
from harness.datasets import Address, DatasetSpec, digest_of, matching_address
from harness.files import replacing
from harness.interactions import read_interactions
from harness.preprocess import Processed, process, statistics
from harness.split import leave_one_out


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workflow.scripts.preprocess", description=__doc__)
    parser.add_argument("--dataset", required=True, help="key in config/datasets.yaml")
    parser.add_argument("--spec", required=True, type=json.loads, help="the dataset's entry, as JSON")
    parser.add_argument("--source", required=True, type=Path, help="the raw file")
    parser.add_argument("--sequences", required=True, type=Path, help="sequences.npz to write; id lists go beside it")
    parser.add_argument("--stats", required=True, type=Path, help="stats.json to write")
    options = parser.parse_args(argv)
    name, spec = options.dataset, DatasetSpec.from_mapping(options.dataset, options.spec)

    served = serving_address(name, spec, options.source)
    interactions = read_interactions(options.source, format=served.format or spec.format, member=served.member)
    processed = process(interactions, **dataclasses.asdict(spec.filter), deduplicate=spec.deduplicate)
    # Too short a user is an error now, not in training.
    leave_one_out(processed.sequences, dataset=name, user_labels=processed.user_labels)
    stats = describe(name, spec, options.source, served, processed)
    check_counts(name, spec, stats)
    write(processed, options.sequences)
    with replacing(options.stats) as partial:
        partial.write_text(json.dumps(stats, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"{name}: {stats['users']:,} users, {stats['items']:,} items, {stats['actions']:,} actions")
    for doubt in doubts(processed):
        print(f"warning: {name}: {doubt}", file=sys.stderr)
    if stats["community_match"] is False:
        print(
            f"warning: {name}: the sequences differ from the community's (ours {stats['fingerprint']}, "
            f"theirs {spec.community_fingerprint}); equal counts mean that only the order of ties may differ",
            file=sys.stderr,
        )
    return 0


def doubts(processed: Processed) -> list[str]:
    """What a file that was read without an error may still have wrong with it."""
    actions = len(processed.sequences.items)
    following = actions - processed.sequences.num_users  # those that have one before them
    found = []
    if processed.repeated:
        found.append(
            f"{processed.repeated:,} of {actions:,} actions stand twice, with user, item and time; if the file does "
            "not mean that, `deduplicate: true` keeps the first of each user and item"
        )
    if processed.tied and processed.tied > 0.9 * following:
        found.append(f"{processed.tied:,} of {following:,} actions have the time of the one before: no order in time")
    return found


def serving_address(name: str, spec: DatasetSpec, source: Path) -> Address:
    """Tell by its digest which address a raw file is from, hence its format and member.

    Raises ValueError if a downloaded file has none of the expected digests; a configured local file may.
    """
    address = matching_address(source, spec.urls)
    if address is not None:
        return address
    if spec.file is None and spec.urls:
        expected = " or ".join(str(address.digest) for address in spec.urls)
        raise ValueError(
            f"{source}: wrong checksum, found {digest_of(source, 'sha256')} and {digest_of(source, 'md5')}, "
            f"expected {expected}; delete the file and run again, or name it in datasets.{name}.file to use it "
            f"all the same"
        )
    return Address(url=str(source), member=spec.member, format=spec.format)


def describe(name: str, spec: DatasetSpec, source: Path, served: Address, processed: Processed) -> dict[str, Any]:
    """Return what stats.json records: Table 1's row, where it comes from, and what it was compared with."""
    stats = statistics(processed.sequences)
    expected = None if spec.expected is None else dataclasses.asdict(spec.expected)
    theirs = spec.community_fingerprint
    return {
        "dataset": name,
        **stats,
        "sequences_sha256": processed.sequences.sha256,
        "tied_actions": processed.tied,
        "source": {
            "file": source.name,
            "bytes": source.stat().st_size,
            "sha256": digest_of(source, "sha256").removeprefix("sha256:"),
            "format": served.format,
            "member": served.member,
            "published_digest": served.digest,
        },
        "filter": dataclasses.asdict(spec.filter),
        "deduplicate": spec.deduplicate,
        "dropped": processed.dropped,
        "expected": expected,
        "expected_match": None if expected is None else all(stats[key] == expected[key] for key in expected),
        "community_fingerprint": theirs,
        "community_match": None if theirs is None else theirs == stats["fingerprint"],
    }


def check_counts(name: str, spec: DatasetSpec, stats: dict[str, Any]) -> None:
    """Raise ValueError with both numbers if the counts are not the published ones."""
    if spec.expected is None:
        return
    pairs = [(key, stats[key], value) for key, value in dataclasses.asdict(spec.expected).items()]
    differing = [f"{found:,} {key}, expected {value:,}" for key, found, value in pairs if found != value]
    if differing:
        raise ValueError(
            f"{name}: {'; '.join(differing)}; check datasets.{name}.file and .filter, "
            f"or set datasets.{name}.expected to null to accept other data"
        )


def write(processed: Processed, path: Path) -> None:
    """Write the sequences and the id lists: line n of item_ids.txt names item n, of user_ids.txt the n-th row."""
    for file_name, labels in (
        ("item_ids.txt", processed.item_labels),
        ("user_ids.txt", processed.user_labels),
    ):
        with replacing(path.with_name(file_name)) as partial:
            partial.write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    with replacing(path) as partial:
        processed.sequences.save(partial)


if __name__ == "__main__":
    sys.exit(cli.run(main))
