import errno

import pytest

from harness import cli
from harness.files import replacing


def raising(error):
    def main(argv):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("seed: must be\n  a number"), "error: seed: must be a number"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "x.npz"),
            "error: x.npz: No such file or directory",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device"),
        (ValueError(), "error: ValueError"),
    ],
)
def test_mistakes_become_one_line(capsys, error, line):
    assert cli.run(raising(error)) == 1
    assert capsys.readouterr().err == f"{line}\n"


def test_traceback_on_request(monkeypatch):
    monkeypatch.setenv("ALIGNDIFF_TRACEBACK", "1")
    with pytest.raises(ValueError):
        cli.run(raising(ValueError("x")))


@pytest.mark.parametrize("bug", [KeyError("x"), TypeError("x"), AssertionError("x")])
def test_bugs_keep_their_traceback(bug):
    with pytest.raises(type(bug)):
        cli.run(raising(bug))


def test_exit_codes_pass_through():
    assert cli.run(lambda argv: 3) == 3 and cli.run(lambda argv: None) == 0
    assert cli.run(raising(KeyboardInterrupt())) == 130


def test_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(OSError) as caught, replacing(path) as partial:
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert cli.one_line(caught.value) == f"{path}: No space left on device"
    assert path.read_text() == "old"
    with replacing(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]
