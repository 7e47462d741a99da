"""What the sources of every domain's rows are read with: the user's own files, files of packages, sets of the hub."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from condpdiff.common import packages
from condpdiff.common.errors import UserError
from condpdiff.common.files import as_spelt


def own_path(name: str, place: str, folder: bool = False) -> Path:
    """A file or folder of the user's; an absolute path is a warning. Errors begin with `place`, its file and key.
    Raises UserError: it is not there.
    """
    path = as_spelt(Path(name))
    if not (path.is_dir() if folder else path.is_file()):
        kind = "folder" if folder else "file"
        raise UserError(f"{place}: no such {kind} {name!r} (a relative path starts at the root of the repository)")
    if path.is_absolute():
        message = "an absolute path: other machines may lack it; a path in the repository is safer"
        print(f"warning: {place}: {name} is {message}", file=sys.stderr)
    return path


def package_file(package: str, member: str, place: str) -> bytes:
    """A file of a package, as `packages.read_member` has it; its errors begin with `place`."""
    try:
        return packages.read_member(package, member)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


@contextmanager
def hub_data(dataset: str, config: str | None, where: str, otherwise: str) -> Iterator[tuple[Any, str]]:
    """The module `datasets`, and what to call the set in an error, for a block that reads a set of the hub.
    Raises UserError: the block failed; says why in one line, and how to do `otherwise`.
    """
    import datasets  # the hub's libraries take seconds
    import huggingface_hub

    place = f"{where}: data.source: hub data set {dataset}" + (f" ({config})" if config else "")
    try:
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            # load_dataset tries each file six times: one question shows at once whether the hub answers.
            huggingface_hub.HfApi().dataset_info(dataset, timeout=10)
        yield datasets, place
    except UserError:
        raise
    except Exception as error:  # the hub's libraries raise dozens of kinds
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{place}: cannot be loaded with datasets.load_dataset ({reason}); {otherwise}") from None
