"""Asked-for performance, where weights lie, and studies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Made
from fake_run import write_study

from condpdiff.common.errors import UserError
from condpdiff.experiments.study_plan import load_study
from condpdiff.experiments.study_results import Results, long_csv
from condpdiff.report import doses_section, figures, novelty_section, studies_section
from condpdiff.report.blocks import Figures, Section, Table
from condpdiff.report.evaluation import Evaluation
from condpdiff.text.report import wrong_overlaps

STUDIES = Path("docs/studies")


def tables(section: Section) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]


def with_losses(e: Evaluation, by_dose: dict[float, list[float]]) -> Evaluation:
    rows = [("soup", None, 0, 0.3, 80.0)]
    rows += [("condpdiff", p, i, loss, 70.0 + 10 * p) for p, losses in by_dose.items() for i, loss in enumerate(losses)]
    return replace(e, doses=pd.DataFrame(rows, columns=["arm", "asked", "candidate", "loss", "validation"]))


def test_the_table_has_means_at_three_doses_and_a_dash_for_one_not_asked(movies: Evaluation) -> None:
    found = doses_section.table([with_losses(movies, {0.0: [0.6, 0.8], 1.0: [0.2, 0.4]})], scored=True)
    assert found.columns[2:6] == ["loss, p = 0", "loss, p = 0.5", "loss, p = 1", "loss, soup"]
    assert found.rows == [["movies", "0.89", "0.700", "–", "0.300", "0.300", "70.0", "–", "80.0"]]
    assert doses_section.correlation(with_losses(movies, {0.0: [3.0, np.nan], 0.5: [2.0], 1.0: [1.0]})) == 1
    assert not doses_section.is_scored(replace(movies, racing=True)) and doses_section.is_scored(movies)
    found = doses_section.table([movies], scored=False)
    assert found.columns[-1] == "loss, soup" and "validation" not in found.caption


def test_tsne_is_shown_under_several_settings() -> None:
    assert figures.views(200, 20, 3) == [(20, 3), (10, 3), (40, 3), (20, 4)]  # half and double, another seed
    assert figures.views(13, 20, 0) == [(4, 0), (4, 1)]  # settings that few points make equal are shown once


@pytest.mark.parametrize(
    ("figure", "labels", "absent"),
    [
        ("tsne", ["soup", "gaussian", "pca_gaussian", "condpdiff", "checkpoint, last"], []),
        ("trajectories", ["noise", "soup", "condpdiff"], []),
        ("mistakes", ["gaussian", "condpdiff"], ["no_lora", "majority"]),  # these are no LoRA
    ],
)
def test_figures_name_what_they_draw(text: Made, figure: str, labels: list[str], absent: list[str]) -> None:
    svg = (text.report / f"figures/{figure}-movies.svg").read_text()
    assert all(f">{label}<" in svg for label in labels) and not any(f">{label}<" in svg for label in absent)


def test_a_narrow_spread_is_marked_and_one_step_of_fine_tuning_stands_below(text: Made, undrawn: None) -> None:
    found = novelty_section.section(text.spec, text.params, text.spec.novelty())
    spread, distance, overlap = tables(found)
    assert spread.rows[-1] == ["condpdiff", "0.90", "0.31 (narrow)"]
    assert distance.rows[-1][0] == "one step of fine-tuning" and distance.foot == 1
    assert overlap.rows[-1][2] == "–"  # regression has no mistakes


def test_the_figures_say_how_distance_and_mistakes_go_with_the_score(movies: Evaluation) -> None:
    scores = movies.scores.copy()
    ours = scores["arm"] == "condpdiff"
    scores.loc[ours, "distance"] = -scores.loc[ours, "validation"]
    assert "condpdiff: ρ = −1.00" in novelty_section.novelty(replace(movies, scores=scores)).content.decode()


def test_overlap_of_mistakes_leaves_out_the_checkpoint_itself(text: Made, movies: Evaluation) -> None:
    rows = [("original", 0), ("original", 1), ("condpdiff", 0)]
    e = replace(movies, scores=pd.DataFrame(rows, columns=["arm", "candidate"]))
    predictions = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]])
    assert wrong_overlaps(e, predictions, np.zeros(4)) == pytest.approx([1 / 3, 1 / 3, 1])
    alone = wrong_overlaps(replace(e, scores=e.scores.drop(1).reset_index()), predictions[[0, 2]], np.zeros(4))
    assert np.isnan(alone[0]) and alone[1] == 1  # a lone checkpoint has no other to share mistakes with
    of_classes, of_numbers = (wrong_overlaps(e, *text.spec.outputs[e.name]) for e in text.spec.evaluations)
    assert ((of_classes >= 0) & (of_classes <= 1)).all() and np.isnan(of_numbers).all()


@pytest.mark.usefixtures("undrawn")
def test_a_row_has_the_mean_over_seeds_of_the_average_and_the_papers_average(
    text: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(text.root)
    (section,) = studies_section.sections()
    table, figure = section.blocks
    assert isinstance(table, Table) and isinstance(figure, Figures)
    assert table.columns == ["row", "seeds", "condpdiff_mean", "std", "condpdiff", "minus soup", "paper"]
    assert table.rows[0] == ["one_hot", "2", "80.50", "0.71", "81.50", "+1.50", "79.17"]
    assert "`table4b` at the size `embedded`" in table.caption
    assert [image.name for image in figure.images] == ["study-table4b-embedded"]


def test_every_study_and_size_has_its_table_and_what_is_missing_is_a_dash_or_named(run: Path) -> None:
    assert studies_section.sections() == []
    write_study(run)
    rows = pd.read_csv(STUDIES / "table4b.csv")
    rows = rows[(rows["seed"] == 0) & (rows["arm"] == "condpdiff_mean")]
    rows.assign(size="paper").to_csv(STUDIES / "more.csv", index=False)
    (section,) = studies_section.sections()
    more, _ = tables(section)
    assert "`paper`" in more.caption and more.rows[0] == ["one_hot", "1", "80.00", "–", "–", "–", "–"]
    (STUDIES / "noise.csv").write_text("study,row\nnoise,a\n")
    with pytest.raises(UserError, match=r"docs/studies/noise.csv: no column 'size'"):
        studies_section.sections()


def test_what_study_show_writes_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any experiment of it has run."""
    written = long_csv(Results(load_study("table4b"), {}, []))
    monkeypatch.chdir(tmp_path)
    STUDIES.mkdir(parents=True)
    (STUDIES / "table4b.csv").write_text(written)
    (table,) = tables(studies_section.sections()[0])
    assert table.rows
    assert all(list(row[1:6]) == ["0", "–", "–", "–", "–"] and float(row[6]) > 50 for row in table.rows)
