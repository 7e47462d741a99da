"""Errors that are the user's to mend: one line, no traceback, exit status 1."""

import difflib
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

# What each extra of pyproject.toml has that a plain installation lacks, by the name that is imported.
EXTRAS = {
    "app": ("gradio",),
    "pipeline": (
        *("datasets", "dvc", "matplotlib", "open_clip", "ruamel", "scipy", "scmrepo", "sklearn"),
        *("tabulate", "threadpoolctl"),
    ),
    "style": ("cleanfid", "onnxruntime"),
}
FULL, UNWRITABLE = (errno.ENOSPC, errno.EDQUOT), (errno.EROFS, errno.EACCES, errno.EPERM)


class UserError(Exception):
    """Says in one line which file or key is wrong, what was found and what is allowed."""

    def __str__(self) -> str:
        return super().__str__().replace("\n", "\\n")  # a name in it may have line breaks


def nearest(found: str, allowed: Iterable[str]) -> str:
    """`" (did you mean 'noise'?)"` for a misspelt word, `""` when nothing is close."""
    matches = difflib.get_close_matches(found, list(allowed), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def first_line(error: Exception) -> str:
    """The first line of what an error of a library says, or its kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`; a `UserError`, a full disk or a missing extra ends it with one line and status 1."""
    try:
        main()
    except UserError as error:  # of several processes that share a stage, all meet it, and the first tells it
        sys.exit(1 if os.environ.get("RANK", "0") != "0" else f"error: {error}")
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        extra = next((extra for extra, names in EXTRAS.items() if missing in names), None)
        if extra is None:
            raise
        sys.exit(f"error: this needs {missing}: pip install 'condpdiff[{extra}]'")
    except KeyboardInterrupt:
        sys.exit("error: stopped by Ctrl-C")
    except Exception as error:
        # Some libraries have a full disk in the text alone, some (torch.save) nowhere.
        told = getattr(error, "errno", None) in FULL or os.strerror(errno.ENOSPC) in str(error)
        if told or shutil.disk_usage(Path.cwd()).free < 2**20:
            where = getattr(error, "filename", None) or Path.cwd()
            sys.exit(f"error: {where}: the disk is full; free some space and run again")
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            sys.exit(f"error: {error.filename or Path.cwd()}: {error.strerror}; mend its rights and run again")
        raise
