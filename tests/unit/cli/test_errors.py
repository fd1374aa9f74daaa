import errno

import pytest

from embellama.cli.errors import report
from embellama.errors import (
    ConfigurationError,
    DownloadError,
    InputTooLongError,
    InvalidInputError,
    ModelNotFoundError,
)


@pytest.mark.parametrize(
    ("exc", "status"),
    [
        (InvalidInputError("x"), 2),
        (InputTooLongError("x", indices=[0], n_tokens=[9], limit=5), 2),
        (ConfigurationError("x"), 2),
        (ModelNotFoundError("x"), 1),
        (DownloadError("x"), 1),
    ],
)
def test_our_errors_are_one_line_with_a_status(exc, status, capsys):
    assert report(exc) == status
    assert capsys.readouterr().err == "embellama: x\n"


def test_a_message_of_several_lines_becomes_one(capsys):
    report(ConfigurationError("a\n  b\n"))
    assert capsys.readouterr().err == "embellama: a b\n"


def test_the_operating_systems_refusal_names_the_file(capsys):
    assert report(OSError(errno.ENOSPC, "No space left on device", "/x/y")) == 1
    assert capsys.readouterr().err == "embellama: /x/y: No space left on device\n"


@pytest.mark.parametrize(("exc", "status"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 141)])
def test_an_end_that_the_user_wanted_says_nothing(exc, status, capsys):
    assert report(exc, show_traceback=True) == status
    assert capsys.readouterr().err == ""


def test_a_fault_of_ours_says_how_to_see_where(capsys):
    assert report(KeyError("x")) == 1
    assert (
        capsys.readouterr().err == "embellama: unexpected KeyError: 'x' (--verbose shows where)\n"
    )


def test_the_traceback_is_there_for_whoever_asks(capsys):
    try:
        raise ModelNotFoundError("gone")
    except ModelNotFoundError as exc:
        report(exc, show_traceback=True)
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith("embellama: gone\n")
