"""The search's table is all that it prints on stdout."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import search
from condpdiff.text.task import Task
from tests.stand_ins import make_collect, make_task


class CollectedError(Exception):
    """Ends a search after its fine-tuning."""


def test_fine_tunings_own_lines_go_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def finetune(name: str, task: Task, *_: Any) -> None:
        print(f"{name}: accuracy 50.0 at {task.finetune.lr}")

    def load_zoo(folder: Path, last: int) -> None:
        print("after it")
        raise CollectedError

    monkeypatch.setattr(search, "load_task", lambda name: make_task())
    monkeypatch.setattr(search, "finetune", finetune)
    monkeypatch.setattr(search, "load_zoo", load_zoo)
    with pytest.raises(CollectedError):
        search.try_rate("films", 0.5, make_collect())
    output = capsys.readouterr()
    assert (output.out, output.err) == ("after it\n", "films: accuracy 50.0 at 0.5\n")
