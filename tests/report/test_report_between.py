"""The section on what lies between two tasks: a figure a pair, what unseen conditions bring, and images."""

from pathlib import Path

import pandas as pd
import pytest
from fake_run import build
from fake_style_run import PROMPTS, STRIPS, build_styles

from condpdiff.common.errors import UserError
from condpdiff.experiments.params import load_params
from condpdiff.report.between import Between, read_between, sections
from condpdiff.report.blocks import Figures, Gallery, Table
from condpdiff.report.style_tables import StyleEvaluation, read_style
from condpdiff.report.tables import Evaluation, read_evaluation

ROOT = Path("data/interpolation")


def text(root: Path, monkeypatch: pytest.MonkeyPatch, pairs: int = 1) -> tuple[list[Between], list[Evaluation]]:
    monkeypatch.chdir(build(root, tasks=("movies", "tweets", "moods"), n=6, v=20, pairs=pairs))
    params, tasks = load_params()
    found = read_between(ROOT, params.interpolate.pairs_of(params.tasks), images=False)
    return found, [read_evaluation(Path("data/eval"), name, task) for name, task in tasks.items()]


def styles(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Between], list[StyleEvaluation]]:
    monkeypatch.chdir(build_styles(root, n=6))
    _, tasks = load_params()
    found = read_between(ROOT, [("charcoal", "chalk")], images=True)
    return found, [read_style(Path("data/eval"), name, task) for name, task in tasks.items()]


def change(pair: str, **columns: list[str]) -> None:
    """Keep the rows of scores.csv whose columns have one of these values."""
    path = ROOT / pair / "scores.csv"
    scores = pd.read_csv(path)
    for column, values in columns.items():
        scores = scores[scores[column].isin(values)]
    scores.to_csv(path, index=False)


def test_a_figure_a_pair_and_the_loras_of_each_task_seen_and_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, evaluations = text(tmp_path / "run", monkeypatch, pairs=2)
    (section,) = sections(pairs, evaluations)
    figures, table = section.blocks
    assert isinstance(figures, Figures) and isinstance(table, Table)
    assert [image.name for image in figures.images] == ["between-movies--tweets", "between-tweets--moods"]
    assert "floor" not in figures.caption + table.caption
    assert "own head" in figures.caption and "ower is better" not in figures.caption
    assert "first metric on validation, %" in figures.caption  # accuracy and pearson
    assert table.columns == ["task", "seen", "other words", "other examples"]
    assert [row[0] for row in table.rows] == ["movies", "tweets", "moods"]
    for _, seen, words, examples in table.rows:
        assert abs(float(seen) - 85) < 0.5 and (float(words), float(examples)) == (83.0, 84.0)
    assert "of 2 each" in table.caption and "two-shot draws" in table.caption and "images" not in table.caption


def test_styles_have_strips_of_images_and_lower_is_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, evaluations = styles(tmp_path / "run", monkeypatch)
    (section,) = sections(pairs, evaluations)
    figures, table, *galleries = section.blocks
    assert isinstance(figures, Figures) and isinstance(table, Table)
    assert "FD-Lite0, lower is better" in figures.caption and "head" not in figures.caption
    assert table.columns == ["style", "seen", "held-out images", "floor"] and "lower is better" in table.caption
    floors = {e.name: f"{e.picked('floor'):.2f}" for e in evaluations}
    assert {row[0]: row[-1] for row in table.rows}.items() <= floors.items()
    assert "Dashed: each style's floor" in figures.caption
    assert all(float(row[2]) == 10.0 for row in table.rows)
    assert len(galleries) == len(STRIPS)
    for gallery, lambdas in zip(galleries, STRIPS.values(), strict=True):
        assert isinstance(gallery, Gallery)
        assert gallery.columns[0] == "prompt" and len(gallery.columns) == 1 + len(lambdas)
        assert (gallery.columns[1], gallery.columns[-1]) == ("λ = 0, charcoal", "λ = 1, chalk")
        assert [prompt for prompt, _ in gallery.rows] == PROMPTS
        assert all(len(pictures) == len(lambdas) for _, pictures in gallery.rows)


def test_what_was_not_interpolated_is_neither_drawn_nor_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text(tmp_path / "run", monkeypatch)
    change("movies--tweets", kind=["weights"])  # condition.kind: learnable
    _, tasks = load_params()
    evaluations = [read_evaluation(Path("data/eval"), name, task) for name, task in tasks.items()]
    (section,) = sections(read_between(ROOT, [("movies", "tweets")], images=False), evaluations)
    (figures,) = section.blocks
    assert isinstance(figures, Figures)
    assert "nterpolated condition" not in figures.caption and "nterpolated condition" not in figures.images[0].alt


def test_a_lora_without_a_score_is_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, evaluations = styles(tmp_path / "run", monkeypatch)
    pairs[0].scores.loc[pairs[0].scores["kind"] == "unseen_images", "score"] = float("nan")
    (section,) = sections(pairs, evaluations)
    table = section.blocks[1]
    assert isinstance(table, Table)
    assert [row[2] for row in table.rows] == ["–", "–"]


def test_no_pairs_no_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, evaluations = text(tmp_path / "run", monkeypatch, pairs=0)
    assert (pairs, sections(pairs, evaluations)) == ([], [])
    assert not ROOT.exists()  # and not missed


def test_what_is_missing_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text(tmp_path / "run", monkeypatch)
    change("movies--tweets", task=["movies"])
    with pytest.raises(
        UserError, match=r"movies--tweets/scores.csv: found no scores of kind 'weights' on 'tweets'; run"
    ):
        read_between(ROOT, [("movies", "tweets")], images=False)
    with pytest.raises(UserError, match=r"^data/interpolation/a--b/scores.csv: no such file; run `dvc repro`$"):
        read_between(ROOT, [("a", "b")], images=False)
