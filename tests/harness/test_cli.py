import errno

import numpy as np
import pytest
import torch
from torch.nn import functional

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


def test_a_librarys_mistake_leads_to_the_line_that_called_it(capsys):
    """As of a new method whose tensors have the wrong shape; without the place nobody would find it."""
    assert cli.run(lambda argv: np.zeros(2) + np.zeros((3, 3)).reshape(2)) == 1
    message = capsys.readouterr().err
    assert "cannot reshape" in message and "tests/harness/test_cli.py:" in message
    assert cli.run(lambda argv: functional.cross_entropy(torch.zeros(4, 3), torch.zeros(5, dtype=torch.long))) == 1
    message = capsys.readouterr().err
    assert "batch_size" in message and "(at tests/harness/test_cli.py:" in message and message.count("\n") == 1


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
