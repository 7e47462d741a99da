"""Where weights lie: t-SNE at several settings, noises on their way, distance and mistakes against score."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_run import K, build
from safetensors.numpy import load_file, save_file

from condpdiff.common.errors import UserError
from condpdiff.report import figures
from condpdiff.report.compare import correlation
from condpdiff.report.overlap import wrong_overlaps
from condpdiff.report.tables import Evaluation, read_evaluation
from condpdiff.report.trajectories import read_trajectories
from condpdiff.report.tsne import has_noises, tsne, views
from condpdiff.text.task import load_task
from stages import report

SAMPLES, ZOO = Path("data/samples"), Path("data/zoo")


def movies(run: Path) -> Evaluation:
    return read_evaluation(run / "data/eval", "movies", load_task("movies"))


def test_tsne_is_shown_at_half_and_double_the_perplexity_and_from_another_seed() -> None:
    assert views(200, 20, 3) == [(20, 3), (10, 3), (40, 3), (20, 4)]


def test_settings_that_few_points_make_equal_are_shown_once() -> None:
    assert views(13, 20, 0) == [(4, 0), (4, 1)]
    assert views(2, 20, 0) == [(1, 0), (1, 1)]


def test_soup_and_gaussian_are_drawn_into_tsne(run: Path) -> None:
    svg = tsne(movies(run), 5, 0).svg
    assert all(f">{arm}<" in svg for arm in ("soup", "gaussian", "pca_gaussian", "condpdiff"))
    assert "perplexity 10, seed 0" in svg and "perplexity 5, seed 1" in svg


def test_trajectories_lie_among_the_last_checkpoints_and_their_soup(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("condpdiff.report.trajectories.PART", 7)  # several parts, the last one shorter
    points, distances = read_trajectories(SAMPLES, ZOO, "movies", 10)
    theta = load_file(ZOO / "movies/theta.safetensors")["theta"][-10:].astype(np.float64)
    ways = load_file(SAMPLES / "movies.safetensors")["trajectories"]  # [J, P, K]
    x = np.concatenate([theta, theta.mean(0, keepdims=True), ways.reshape(-1, K)])
    np.testing.assert_allclose(distances, np.linalg.norm(x[:, None] - x[None], axis=-1), atol=1e-5)
    assert list(points["arm"]) == ["checkpoint"] * 10 + ["soup"] + ["condpdiff"] * ways.shape[0] * ways.shape[1]
    assert list(points["point"][11:15]) == [0, 1, 2, 3] and has_noises((points, distances))


def test_no_trajectories_no_figure(run: Path) -> None:
    for path in SAMPLES.iterdir():
        save_file({"trajectories": np.zeros((0, 4, K), np.float32)}, path)
    report.main()
    assert not list(Path("report/figures").glob("trajectories-*"))


def test_trajectories_of_another_size_and_a_zoo_too_small_are_named(run: Path) -> None:
    with pytest.raises(UserError, match=r"movies/theta.safetensors: theta is \[42, 24\], needed: \[at least 43, 24\]"):
        read_trajectories(SAMPLES, ZOO, "movies", 43)
    save_file({"trajectories": np.zeros((1, 2, 5), np.float32)}, SAMPLES / "movies.safetensors")
    with pytest.raises(UserError, match=r"theta is \[42, 24\], needed: \[at least 10, 5\]"):
        read_trajectories(SAMPLES, ZOO, "movies", 10)
    (SAMPLES / "movies.safetensors").unlink()
    with pytest.raises(UserError, match=r"data/samples/movies.safetensors: no such file; run `dvc repro`"):
        read_trajectories(SAMPLES, ZOO, "movies", 10)


def test_correlation_is_of_ranks_and_leaves_out_what_is_not_known() -> None:
    x = np.array([1.0, 2.0, 3.0, np.nan, 4.0])
    assert correlation(x, np.array([1.0, 10.0, 100.0, 0.0, np.nan])) == pytest.approx(1)
    assert correlation(x, -(x**3)) == pytest.approx(-1)
    assert np.isnan(correlation(x, np.ones(5))) and np.isnan(correlation(x[:1], x[:1]))


def test_the_figures_say_how_distance_and_mistakes_go_with_the_score(run: Path) -> None:
    e = movies(run)
    scores = e.scores.copy()
    ours = scores["arm"] == "condpdiff"
    scores.loc[ours, "distance"] = -scores.loc[ours, "validation"]
    e = replace(e, scores=scores)
    assert "condpdiff: ρ = −1.00" in figures.novelty(e).svg
    image = figures.mistakes(e, scores["validation"].to_numpy())
    assert "condpdiff: ρ = 1.00" in image.svg and image.name == "mistakes-movies"
    assert ">no_lora<" not in image.svg and ">gaussian<" in image.svg


def test_overlaps_of_mistakes_are_known_of_every_candidate_of_a_classification_task(run: Path) -> None:
    found = wrong_overlaps(movies(run))
    assert ((found >= 0) & (found <= 1)).all() and len(found) == len(movies(run).scores)
    tweets = read_evaluation(run / "data/eval", "tweets", load_task("tweets"))
    assert np.isnan(wrong_overlaps(tweets)).all()


def test_a_lone_checkpoint_has_no_other_to_share_mistakes_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(build(tmp_path / "one", tasks=("movies",), n=4, count=1))
    e = movies(Path())
    found = wrong_overlaps(e)
    assert list(np.isnan(found)) == list(e.scores["arm"] == "original")
