"""Errors that are the user's to mend: one line, no traceback, exit status 1."""

import difflib
import errno
import sys
from collections.abc import Callable, Iterable
from pathlib import Path


class UserError(Exception):
    """Says in one line which file or key is wrong, what was found and what is allowed."""


def nearest(found: str, allowed: Iterable[str]) -> str:
    """`" (did you mean 'noise'?)"` for a misspelt word, `""` when nothing is close."""
    matches = difflib.get_close_matches(found, list(allowed), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`; a `UserError` or a full disk ends it with one line and status 1."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename or Path.cwd()
            sys.exit(f"error: {where}: the disk is full; free some space and run again")
        raise
