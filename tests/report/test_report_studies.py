"""The section of studies: rows x our mean over seeds and the paper's figure."""

from pathlib import Path

import pandas as pd
import pytest
from fake_run import write_study

from condpdiff.common.errors import UserError
from condpdiff.experiments.study_plan import load_study
from condpdiff.experiments.study_results import Results, long_csv
from condpdiff.report.blocks import Figures, Table
from condpdiff.report.studies import read_studies, sections

FOLDER = Path("docs/studies")


def test_a_row_has_the_mean_over_seeds_of_the_average_and_the_papers_average(run: Path) -> None:
    write_study(run)
    (section,) = sections(read_studies(FOLDER))
    table, figures = section.blocks
    assert isinstance(table, Table) and isinstance(figures, Figures)
    assert table.columns == ["row", "seeds", "condpdiff_mean", "std", "condpdiff", "minus soup", "paper"]
    assert table.rows[0] == ["one_hot", "2", "80.50", "0.71", "81.50", "+1.50", "79.17"]
    assert [i.name for i in figures.images] == ["study-table4b-embedded"] and "one_hot 80.50" in figures.images[0].alt
    assert "`table4b` at the size `embedded`" in table.caption


def test_every_study_and_size_has_its_table_and_what_is_missing_is_a_dash(run: Path) -> None:
    write_study(run)
    path = FOLDER / "table4b.csv"
    rows = pd.read_csv(path)
    rows = rows[(rows["seed"] == 0) & (rows["arm"] == "condpdiff_mean")]
    rows.assign(size="paper").to_csv(FOLDER / "more.csv", index=False)
    (section,) = sections(read_studies(FOLDER))
    assert len([block for block in section.blocks if isinstance(block, Table)]) == 2
    table = next(b for b in section.blocks if isinstance(b, Table) and "`paper`" in b.caption)
    assert table.rows[0] == ["one_hot", "1", "80.00", "–", "–", "–", "–"]


def test_without_studies_there_is_no_section(run: Path) -> None:
    assert sections(read_studies(FOLDER)) == []
    write_study(run)
    assert [section.title for section in sections(read_studies(FOLDER))] == ["Studies"]


def test_a_missing_column_is_named(run: Path) -> None:
    FOLDER.mkdir(parents=True)
    (FOLDER / "noise.csv").write_text("study,row\nnoise,a\n")
    with pytest.raises(UserError, match=r"docs/studies/noise.csv: no column 'size'"):
        read_studies(FOLDER)


def test_what_study_show_writes_can_be_read(tmp_path: Path) -> None:
    """Before any experiment of it has run."""
    (tmp_path / "table4b.csv").write_text(long_csv(Results(load_study("table4b"), {}, [])))
    (section,) = sections(read_studies(tmp_path))
    (table,) = section.blocks
    assert isinstance(table, Table) and table.rows
    assert all(row[1:6] == ["0", "–", "–", "–", "–"] and float(row[6]) > 50 for row in table.rows)
