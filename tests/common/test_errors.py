"""The user's errors: one line and status 1 (see also test_cli.py); everything else keeps its traceback."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from condpdiff.common.errors import run


def raising(error: BaseException) -> Any:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(("number", "file"), [(errno.ENOSPC, "data/zoo/a"), (errno.EDQUOT, None)])
def test_full_disk_is_one_line_that_names_the_file_or_the_working_directory(number: int, file: str | None) -> None:
    with pytest.raises(SystemExit) as end:
        run(raising(OSError(number, os.strerror(number), file)))
    assert end.value.code == f"error: {file or Path.cwd()}: the disk is full; free some space and run again"


def test_what_ends_a_run_from_outside_is_one_line_and_other_errors_keep_their_traceback() -> None:
    for error, line in (
        (OSError(errno.EROFS, "Read-only file system", "data/ldm"), "data/ldm: Read-only file system; mend its rights"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied; mend its rights"),
        (KeyboardInterrupt(), "stopped by Ctrl-C"),
    ):
        with pytest.raises(SystemExit, match=f"^error: {line}"):
            run(raising(error))
    for error in (ValueError("a bug"), OSError(errno.EINVAL, "invalid", "x")):
        with pytest.raises(type(error)) as found:
            run(raising(error))
        assert found.value is error
    run(lambda: None)
