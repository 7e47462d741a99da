"""The page of a run of text families, out of made numbers: how often each arm is right, and on which tasks."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from condpdiff.report import render, unseen_text
from condpdiff.report.compare import WORDS
from condpdiff.report.page import Report
from condpdiff.report.unseen_text import ARMS, BEST, STARTS

RIGHT = {"own": 90, "cosine": 80, "condpdiff": 60, "ridge": 62, "swapped": 50, "classifier@64": 91}


def write(name: str, seen: int = 0, **right: float) -> None:
    """Four unseen tasks, one to tune on that is far off, and some that were trained on."""
    found, tiers = [], ["unseen"] * 4 + ["tuning"] + ["train"] * seen
    arms = [*(arm for arm in ARMS if arm != BEST), *(f"{start}+{n}" for start in STARTS for n in (5, 20))]
    for q, tier in enumerate(tiers):
        for arm in arms if tier != "train" else ["own", "ridge", "condpdiff", "swapped"]:
            for number in range(4 if arm == "condpdiff" and tier != "train" else 1):
                accuracy = (RIGHT | right).get(arm, 55) + (number - 1.5 if arm == "condpdiff" else 0) + q - 1.5
                row = {"family": name, "member": q, "tier": tier, "arm": arm, "number": number, "seconds": 0.1}
                found.append(row | {"held_out": number, "accuracy": 0 if tier == "tuning" else accuracy})
    folder = Path("data/eval", name)
    folder.mkdir(parents=True)
    pd.DataFrame(found).to_csv(folder / "arms.csv", index=False)


def built(*families: str) -> Report:
    tasks: Any = {name: SimpleNamespace() for name in families}
    return unseen_text.build(tasks, Path("data"), 0)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("domain: text\n")


def test_figures_are_means_over_unseen_tasks_and_seen_ones_stand_apart() -> None:
    write("near", seen=2)
    write("far", cosine=82)
    report = built("near", "far")
    assert report.table.columns == ["arm", "near", "far", "near, seen"]
    assert {arm: report.metrics["near"][arm] for arm in RIGHT} == RIGHT
    assert report.metrics["near"][BEST] == 61.5 and report.metrics["far"]["cosine"] == 82
    assert report.metrics["near_seen"]["own"] == 90 + np.mean([5, 6]) - 1.5
    bold = {j: report.table.rows[i][0] for i, j in report.table.bold}
    assert bold[1] == bold[2] == "cosine"  # own and the classifiers see labelled rows
    page, brief = render.html(report), render.brief(report)
    assert "near, seen" in page and brief.startswith("On 4 unseen tasks of near, condpdiff is right on **60.0 %**")


@pytest.mark.parametrize(("near", "far", "word"), [(85, 85, WORDS[0]), (85, 60, WORDS[1]), (60, 60, WORDS[2])])
def test_word_is_of_every_rival_without_labelled_rows_in_both_tiers(near: float, far: float, word: str) -> None:
    write("near", condpdiff=near)
    write("far", condpdiff=far)
    assert built("near", "far").word == word
