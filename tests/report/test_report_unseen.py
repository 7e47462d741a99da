"""The page of a run of families, out of made numbers: what share of the gap each arm closes, and for whom."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import tables
from PIL import Image

from condpdiff.common.task import Members
from condpdiff.report import unseen
from condpdiff.report.blocks import Figures, Report, Text
from condpdiff.report.evaluation import WORDS
from condpdiff.report.unseen import ARMS, BEST, HELD_OUT, KNOWN, MEASURES, RIVALS, SHOWN

MEAN, OWN, SAMPLES = 60.0, 20.0, 4
CLOSED = {"own": 100, "condpdiff": 75, "ridge": 50, "nearest": 30, "mean_soup": 0, "swapped": -20, "no_lora": -50}
"""Percent of the gap between MEAN and OWN."""
GRADINGS, STROKES, PICTURES = (Members(unseen=u, tuning=2, train=t) for u, t in ((5, 9), (3, 0), (2, 0)))


def rows(name: str, members: int, aligned: bool, seed: int, closed: dict[str, float]) -> pd.DataFrame:
    """A family's arms.csv: two tuning members after the unseen ones, which are far off."""
    rng, found = np.random.default_rng(seed), []
    tuned = [f"{start}+{n}" for start in ("zero", *RIVALS[:2], "ridge", "condpdiff") for n in (5, 20)]
    for q in range(members + 2):
        level = rng.uniform(-5, 5) if q < members else 500
        who = {"family": name, "member": q, "tier": "unseen" if q < members else "tuning", "seconds": 0.1}
        for arm in {*ARMS, *tuned, "zero+40"} - {BEST}:
            for number in range(SAMPLES if arm == "condpdiff" else 1):
                off = 3 * (number - 1.5) if arm == "condpdiff" else 0
                rmse = MEAN - closed.get(arm, 10) / 100 * (MEAN - OWN) + level + off
                cells = {"arm": arm, "number": number, "to_condition": 10 + number, "fd_lite0": rmse / 10}
                pixels = {"rmse": rmse, "rmse_16": rmse / 2, "lpips_lite0": rmse / 100}
                found.append(who | cells | (pixels if aligned else {}))
    return pd.DataFrame(found)


def write(name: str, members: int, aligned: bool = True, **closed: float) -> None:
    folder = Path("data/eval", name)
    (folder / "images").mkdir(parents=True)
    Path("data/zoo", name).mkdir(parents=True)
    Path("data/zoo", name, "loss.csv").write_text(f"task,step,loss\n{name},1,0.5\n{name},2,0.25\n")
    rows(name, members, aligned, len(name), CLOSED | closed).to_csv(folder / "arms.csv", index=False)
    strip = Image.fromarray(np.zeros((8, 32, 3), np.uint8))
    if aligned:
        numbers = range(members)
        cells = [("unseen", i, j, 10.0 + 20 * (i != j)) for i in numbers for j in numbers]
        cells[-1] = (*cells[-1][:3], 99.0)  # the last one's images are nearer to another style
        pd.DataFrame(cells, columns=["tier", "asked", "true", "rmse"]).to_csv(folder / "choices.csv", index=False)
    for file in [f"{arm}-{q}" for arm in SHOWN for q in range(members)] + ["between-0"]:
        strip.save(folder / "images" / f"{file}.png")


def built(**families: Members) -> Report:
    """Of families by name; of a task the page reads its members alone."""
    tasks: Any = {name: SimpleNamespace(members=members) for name, members in families.items()}
    return unseen.build(tasks, Path("data"), 0)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("domain: style\n")


@pytest.fixture
def report() -> Report:
    """Five unseen gradings of a known family; held out, three strokes, and two of folders without a true image."""
    write("gradings", 5)
    write("strokes", 3, condpdiff=40)
    write("pictures", 2, aligned=False, condpdiff=-10)
    return built(gradings=GRADINGS, strokes=STROKES, pictures=PICTURES)


def test_gap_closed_is_between_the_mean_soup_and_the_own_lora_over_unseen_members(report: Report) -> None:
    known = report.metrics["known"]
    assert {arm: known[arm] for arm in CLOSED} == CLOSED
    assert known[BEST] == pytest.approx(75 + 100 * 4.5 / (MEAN - OWN), abs=0.06)  # the sample nearest to its condition
    assert report.metrics["held_out"]["condpdiff"] == 40 and report.metrics["held_out"]["own"] == 100
    assert [tile[:2] for tile in report.tiles] == [(KNOWN, "75 %"), (HELD_OUT, "40 %")]


def test_interval_holds_the_share_and_is_wider_the_more_members_differ() -> None:
    numbers = rows("a", 6, True, 0, CLOSED).assign(group=KNOWN)
    even = numbers[numbers["tier"] == "unseen"]
    shifts = even["member"].map(dict(enumerate([-9, 9, -3, 3, -6, 6]))).where(even["arm"] == "ridge", 0)
    for share, low, high in unseen._gaps(even, 0)["rmse"].to_numpy():
        assert low == pytest.approx(share) == pytest.approx(high)
    found, again = (unseen._gaps(even.assign(rmse=even["rmse"] + shifts), 0)["rmse"] for _ in range(2))
    share, low, high = found.loc["ridge"]
    assert share == pytest.approx(50) and 50 - 20 < low < 45 and 55 < high < 50 + 20
    assert found.equals(again) and found.loc["condpdiff"].tolist() == pytest.approx([75, 75, 75])


def test_report_counts_how_often_the_style_that_came_out_is_the_one_asked_for(report: Report) -> None:
    section = next(s for s in report.sections if s.id == "choose")
    said = [block.text for block in section.blocks if isinstance(block, Text)]
    never = "LoRAs for styles never trained on, of"
    assert said[0].endswith(f"in the picture: 4 of 5 {never} {KNOWN}, 2 of 3 {never} {HELD_OUT}.")
    images = [image.name for block in section.blocks if isinstance(block, Figures) for image in block.images]
    assert images == ["choices-gradings", "choices-strokes"]


def test_folders_count_by_their_frechet_distance_and_leave_pixels_alone(report: Report) -> None:
    table = next(table for table in tables(report.sections[0].blocks) if table.columns[0] == HELD_OUT)
    held_out = pd.DataFrame(table.rows, columns=table.columns).set_index(HELD_OUT)
    assert held_out.loc["condpdiff", MEASURES["rmse"]] == "40 (40 to 40)"  # of strokes alone
    share = (3 * 40 + 2 * -10) / 5
    assert held_out.loc["condpdiff", MEASURES["fd_lite0"]].startswith(f"{share:.0f} (")
    assert report.table.columns == ["arm", "gradings (pixels (RMSE))", "strokes (pixels (RMSE))", "pictures (FD-Lite0)"]
    assert all("–" not in row for row in report.table.rows)
    assert {table.rows[i][0] for i, _ in table.bold} == {BEST, "ridge"}  # own is no rival
    assert {j: report.table.rows[i][0] for i, j in report.table.bold} == {1: BEST, 2: BEST, 3: "ridge"}
    arms = report.plots["arms"].set_index(["task", "arm"])["score"]
    assert arms[HELD_OUT, "condpdiff"] == 40 and arms[f"tuning {KNOWN}", "own"] == 100


def test_verdict_has_a_sentence_a_group_and_the_start_of_fine_tuning(report: Report) -> None:
    known, start, held_out, _ = report.verdict
    assert known == (
        "For 5 members never trained on, of known families, condpdiff closes **75 %** of the gap between the mean soup "
        "and a member's own LoRA (95 % interval 75 to 75). The others: ridge 50 %, the nearest soup 30 %, cosine of "
        "text and description 10 %, condpdiff under another member's condition −20 %."
    )
    assert held_out.startswith("For 3 members never trained on, of held-out families, condpdiff closes **40 %**")
    assert start.startswith("After 5 more steps of fine-tuning from condpdiff, pixels (RMSE) is ")


@pytest.mark.parametrize(("strokes", "word"), [(80, WORDS[0]), (40, WORDS[1]), (None, WORDS[2])])
def test_word_is_of_every_rival_in_both_groups(strokes: int | None, word: str) -> None:
    write("gradings", 5, **({"condpdiff": 45} if strokes is None else {}))
    write("strokes", 3, condpdiff=strokes or 45)
    assert built(gradings=GRADINGS, strokes=STROKES).word == word


def test_page_and_brief_hold_tables_and_pictures_and_plots_every_family_s_loss(report: Report) -> None:
    assert all(f"{name}/1" in report.html for name in ("gradings", "strokes", "pictures"))
    assert {"pictures-truth-1", "strokes-between"} <= {image.name for image in report.images}
    assert report.brief.startswith("For 5 members never trained on") and "| ridge" in report.brief
    assert list(report.plots["finetune_loss"]["task"].unique()) == ["gradings", "strokes", "pictures"]
    assert report.plots["doses"].empty and list(report.plots["finetune_validation"]) == ["task", "step", "score"]


def test_lines_of_fine_tuning_are_of_the_members_that_it_was_started_for() -> None:
    made = rows("gradings", 3, True, 0, CLOSED)
    some = made[(made["member"] < 2) | ~made["arm"].str.contains("+", regex=False)]
    assert set(unseen.tuned(some)["member"]) == {0, 1} and {"condpdiff+5", "no_lora"} <= set(unseen.tuned(some)["arm"])
    write("gradings", 3)
    some[~some["arm"].str.contains("+", regex=False)].to_csv("data/eval/gradings/arms.csv", index=False)
    found = built(gradings=GRADINGS)
    assert "start" not in [section.id for section in found.sections]
    assert not any("more steps of fine-tuning" in line for line in found.verdict)
