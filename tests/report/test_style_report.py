"""The report on styles: lower is better everywhere, the floor beside it, and images inside the page."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from fake_style_run import PROMPTS, STRIPS, build_styles
from PIL import Image
from test_report_page import Checker, files

from condpdiff.common.errors import UserError
from condpdiff.experiments.params import load_params
from condpdiff.report.compare import best_control
from condpdiff.report.png import read_picture
from condpdiff.report.style_compare import compare, verdict
from condpdiff.report.style_tables import SHOWN, StyleEvaluation, metrics, not_learned, read_style
from condpdiff.report.tables import Summary, pivot, selected, summarise
from condpdiff.style.task import load_task
from stages import report

FIELDS = ("mean", "std", "best", "worst")


@pytest.fixture
def styles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two rendered styles; the working directory is the run's root."""
    root = build_styles(tmp_path / "run")
    monkeypatch.chdir(root)
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of those two styles, made once; for tests that only look at it."""
    root = build_styles(tmp_path_factory.mktemp("made") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        report.main()
    return root / "report"


def read(root: Path, name: str = "charcoal") -> StyleEvaluation:
    return read_style(root / "data/eval", name, load_task(name))


def change(root: Path, name: str = "charcoal", **arms: float | list[float]) -> None:
    """Replace the distances of some arms in scores.csv; what is selected stays."""
    path = root / f"data/eval/{name}/scores.csv"
    scores = pd.read_csv(path)
    for arm, values in arms.items():
        scores.loc[scores["arm"] == arm, "validation"] = values
        scores["validation_fd_lite0"] = scores["validation"]
    scores.to_csv(path, index=False)


def summary_of(root: Path, **arms: float | list[float]) -> Summary:
    change(root, **arms)
    return summarise([read(root)])


def test_the_report_is_the_same_bytes_each_time_and_complete(made: Path, styles: Path) -> None:
    report.main()
    first = files(styles / "report")
    assert files(made) == first
    assert {"metrics.json", "report.md", "results.md", "index.html"} <= set(first)
    plots = ("arms", "doses", "finetune_loss", "finetune_validation", "autoencoder", "ldm")
    assert {f"plots/{name}.csv" for name in plots} <= set(first)
    kinds = ("arms", "dose", "novelty", "tsne", "trajectories")
    assert {f"figures/{kind}-{s}.svg" for kind in kinds for s in ("charcoal", "chalk")} <= set(first)
    assert {f"figures/charcoal-{arm}-{i}.png" for arm in SHOWN for i in range(len(PROMPTS))} <= set(first)
    linked = re.findall(r"!\[.*?\]\((.*?)\)", Path("report/report.md").read_text())
    assert set(linked) == {name for name in first if name.startswith("figures/")}


def test_the_page_holds_its_images_and_asks_no_host_for_anything(made: Path) -> None:
    html = (made / "index.html").read_text()
    checker = Checker()
    checker.feed(html)
    assert not checker.open
    assert all(x.startswith(("#", "data:")) for x in checker.fetched)
    assert not re.search(r"https?://|@import|url\((?!#)|<script [^>]*src", html)
    assert len(set(checker.ids)) == len(checker.ids)
    images = 2 * len(SHOWN) + sum(map(len, STRIPS.values()))
    assert html.count('src="data:image/png;base64,') == images * len(PROMPTS) + 1  # and the sample sheet
    assert all(html.count(f'<th scope="row">{prompt}</th>') == 2 + len(STRIPS) for prompt in PROMPTS)
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", re.sub(r"base64,[^\"]*", "", html).lower())


def test_images_keep_their_seed_and_prompt_beside_the_page(made: Path) -> None:
    with Image.open(made / "figures/charcoal-soup-1.png") as image:
        assert image.info["prompt"] == PROMPTS[1]  # type: ignore[index]


def test_large_images_are_shrunk_in_the_page_alone(tmp_path: Path) -> None:
    Image.new("RGB", (600, 300), "teal").save(tmp_path / "large.png")
    picture = read_picture(tmp_path / "large.png", "large", 'a "large" one', largest=100)
    with Image.open(tmp_path / "large.png") as image:
        assert image.size == picture.size == (600, 300)
    assert picture.png == (tmp_path / "large.png").read_bytes()
    assert len(picture.inline) < len(picture.png) * 4 / 3
    assert 'alt="a &#34;large&#34; one"' in picture.inline


def test_the_distance_is_called_fd_lite0_and_the_styles_rendered(made: Path) -> None:
    page, _, paper = (made / "report.md").read_text().partition("## The paper's figures")
    assert "FD-Lite0" in page and not re.search(r"(?<!no )FID", page)
    assert "FID of the full PixArt on other images, not comparable" in paper
    assert "Over the mean of 2 rendered styles, condpdiff (FD-Lite0 " in page
    assert "small and overfits the few photographs" in page


def test_images_of_a_folder_are_not_called_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(build_styles(tmp_path / "own", styles=("own", "chalk"), n=6))
    report.main()
    assert "mean of 2 styles" in Path("report/results.md").read_text()


def test_the_lowest_of_each_column_is_bold_and_the_floor_stands_beside_it(styles: Path) -> None:
    change(styles, floor=3.0, condpdiff=5.0, soup=4.25)
    report.main()
    rows = {
        row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:-1]]
        for row in Path("report/results.md").read_text().splitlines()
        if row.startswith("| ")
    }
    assert rows["arm"] == ["charcoal", "chalk", "mean"]
    assert rows["floor"][0] == "3.00"  # lower than all arms, and not bold
    assert rows["soup"][0] == "**4.25 (+1.25)**"
    assert rows["condpdiff"][0] == "5.00 (+2.00)"
    assert sum(cells[0].startswith("**") for cells in rows.values()) == 1


def test_best_is_the_lowest_and_worst_the_highest(styles: Path) -> None:
    summary = summary_of(styles, condpdiff=[5.0, 4.0, 6.0, 7.0, 8.0, 9.0])
    row = next(s for s in summary if s.arm == "condpdiff")
    assert (row.mean, row.best, row.worst) == (6.5, 4.0, 9.0)


def test_selection_is_by_the_held_out_loss_and_not_by_the_distance(styles: Path) -> None:
    scores = read(styles).scores
    mine = scores[scores["arm"] == "condpdiff"]
    assert selected(scores, "condpdiff") == mine["select"].idxmax()


def test_the_floor_is_the_mean_over_draws_of_real_images(styles: Path) -> None:
    change(styles, floor=[8.0, 9.0, 13.0])
    assert pivot(summarise([read(styles)]), "selected")["floor"]["charcoal"] == 10.0
    assert read(styles).picked("soup") == 11.2


def test_the_best_control_is_the_lowest_one(styles: Path) -> None:
    assert best_control(summary_of(styles, pca_gaussian=1.0), lower=True) == "pca_gaussian"


@pytest.mark.parametrize(
    ("ours", "word"), [([4.0] * 6, "beats"), ([20.0] * 6, "loses to"), ([9.0, 13.0] * 3, "ties with")]
)
def test_a_difference_within_the_spread_of_candidates_is_a_tie(styles: Path, ours: list[float], word: str) -> None:
    summary = summary_of(styles, condpdiff=ours)
    comparison = compare(summary, "soup")
    assert comparison.average.word == word
    lines = verdict(dict.fromkeys(("control", "original", "soup"), comparison), summary, {}, "FD-Lite0", "styles")
    assert lines[0].startswith("On charcoal, condpdiff (FD-Lite0") and "lower is better" in lines[0]
    assert f"**{word}** the best control, soup" in lines[0]
    assert "floor of so few images is 9.00" in " ".join(lines)
    assert "these are no confidence intervals" in " ".join(lines)


def test_the_spread_is_the_larger_deviation_of_the_two_arms(styles: Path) -> None:
    ours, theirs = [10.0, 11.0] * 3, [10.0, 14.0] * 3
    d = compare(summary_of(styles, condpdiff=ours, original=theirs), "original").average
    assert (d.high - d.low) / 2 == pytest.approx(np.std(theirs, ddof=1))
    d = compare(summary_of(styles), "soup").average
    assert (d.high - d.low) / 2 == pytest.approx(np.std(ours, ddof=1))


def test_a_style_that_no_checkpoint_learned_is_warned_of(styles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(styles, original=87.9)
    report.main()
    assert "warning: Style `charcoal` was not learned: the selected checkpoint's FD-Lite0 (87.90)" in (
        capsys.readouterr().err
    )
    assert json.loads(Path("report/metrics.json").read_text())["tasks_not_learned"] == 1


@pytest.mark.parametrize(("original", "learned"), [(87.9, False), (95.0, False), (60.0, True)])
def test_learned_is_a_share_of_the_way_from_no_lora_to_the_floor(styles: Path, original: float, learned: bool) -> None:
    change(styles, original=original)
    evaluations = [read(styles)]
    assert bool(not_learned(evaluations, summarise(evaluations), 2.0)) is not learned


def test_metrics_are_nested_by_style_and_arm(styles: Path) -> None:
    evaluations = [read(styles, name) for name in ("charcoal", "chalk")]
    summary = summarise(evaluations)
    found = metrics(summary, {})
    assert list(found) == ["charcoal", "chalk", "average", "tasks_not_learned"]
    row = found["average"]
    assert isinstance(row, dict)
    assert list(row["condpdiff"]) == ["selected", "mean", "std", "best"]
    assert list(row["soup"]) == list(row["no_lora"]) == ["selected"]
    assert row["condpdiff"]["mean"] == pytest.approx(pivot(summary, "mean")["condpdiff"]["average"], abs=1e-3)
    assert row["condpdiff_mean"] == row["condpdiff"]["mean"] and row["original_mean"] == row["original"]["mean"]


def test_the_table_for_dvc_plots_goes_from_lowest_to_highest(made: Path) -> None:
    arms = pd.read_csv(made / "plots/arms.csv")
    assert list(arms.columns) == ["task", "arm", "score", "low", "high"]
    assert ((arms["low"] <= arms["score"]) & (arms["score"] <= arms["high"])).all()
    assert {"floor", "no_lora", "condpdiff"} <= set(arms["arm"])


def test_a_race_is_reported_without_what_needs_every_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(build_styles(tmp_path / "race", styles=("charcoal",), n=8, racing=True))
    report.main()
    page = Path("report/report.md").read_text()
    assert "**ties with** the best control" in page and "the spread of candidates is not known" in page
    assert "mean ± sample standard deviation" not in page and "count as the worst" not in page
    assert "1,500 images went through the models in place of 3,000" in page
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", page.lower())
    found = json.loads(Path("report/metrics.json").read_text())
    assert list(found["charcoal"]["condpdiff"]) == ["selected"] and "condpdiff_mean" not in found["charcoal"]


def test_smallest_run_has_no_doses_no_trajectories_and_no_base_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = build_styles(tmp_path / "small", styles=("charcoal",), n=2, count=1, doses=0, trajectories=0)
    params = (root / "params.yaml").read_text().replace("source: trained", "source: hub")
    (root / "params.yaml").write_text(params)
    for path in (root / "data/base").iterdir():
        path.unlink()
    monkeypatch.chdir(root)
    report.main()
    page = Path("report/report.md").read_text()
    assert "Asked-for against obtained" not in page and "denoising steps, among" not in page
    assert "The base model before any LoRA" not in page
    assert Path("report/plots/doses.csv").read_text() == "task,asked,candidate,loss,validation\n"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("data/eval/chalk/scores.csv", "no such file; run `dvc repro`"),
        ("data/eval/chalk/images.csv", "no such file; run `dvc repro`"),
        ("data/eval/chalk/images/condpdiff/0.png", "no such file; run `dvc repro`"),
        ("data/eval/chalk/trajectories.csv", "no such file; run `dvc repro`"),
        ("data/eval/chalk/trajectories.safetensors", "no such file; run `dvc repro`"),
        ("data/eval/chalk/passes.json", "no such file"),
        ("data/interpolation/charcoal--chalk/scores.csv", "no such file; run `dvc repro`"),
        ("data/interpolation/charcoal--chalk/images.csv", "no such file; run `dvc repro`"),
        ("data/interpolation/charcoal--chalk/images/weights/4-0.png", "no such file; run `dvc repro`"),
        ("data/zoo/chalk/validation.csv", "no such file; run `dvc repro`"),
        ("data/base/samples.png", "no such file; run `dvc repro`"),
        ("data/base/denoiser.csv", "no such file; run `dvc repro`"),
        ("configs/paper/table2_style_fid.csv", "no such file; run `dvc repro`"),
    ],
)
def test_what_is_missing_is_named_in_one_line(styles: Path, file: str, message: str) -> None:
    (styles / file).unlink()
    with pytest.raises(UserError) as error:
        report.main()
    assert str(error.value) == f"{file}: {message}"


def test_a_broken_image_is_named(styles: Path) -> None:
    path = styles / "data/eval/charcoal/images/soup/2.png"
    for content in (b"broken", path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"images/soup/2.png: not a readable PNG") as error:
            read(styles)
        assert "\n" not in str(error.value) and "0x" not in str(error.value)


@pytest.mark.parametrize("arm", SHOWN)
def test_an_arm_without_images_is_named(styles: Path, arm: str) -> None:
    path = styles / "data/eval/charcoal/images.csv"
    table = pd.read_csv(path)
    table[table["arm"] != arm].to_csv(path, index=False)
    with pytest.raises(UserError, match=f"images.csv: found (0|no) images of arm '{arm}'"):
        read(styles)


def test_images_of_other_prompts_are_not_put_in_one_row(styles: Path) -> None:
    path = styles / "data/eval/charcoal/images.csv"
    table = pd.read_csv(path)
    table.loc[table["arm"] == "soup", "prompt"] = "a photograph of a dog"
    table.to_csv(path, index=False)
    with pytest.raises(UserError, match=r"images.csv: the prompts of arm 'soup' are not those of condpdiff"):
        read(styles)


@pytest.mark.parametrize("arm", ["floor", "no_lora", "condpdiff"])
def test_a_missing_arm_is_named(styles: Path, arm: str) -> None:
    path = styles / "data/eval/charcoal/scores.csv"
    scores = pd.read_csv(path)
    scores[scores["arm"] != arm].to_csv(path, index=False)
    with pytest.raises(UserError, match=f"scores.csv: no row of arm '{arm}'"):
        read(styles)


def test_a_candidate_without_a_score_counts_as_the_worst_of_all(
    styles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(styles, condpdiff=[math.nan, 10.0, 10.0, 10.0, 10.0, 10.0])
    assert next(s for s in summarise([read(styles)]) if s.arm == "condpdiff").worst == 88.0
    report.main()
    assert "Style `charcoal`: 1 candidates have no score" in capsys.readouterr().err


def test_styles_scored_by_different_distances_have_no_mean(styles: Path) -> None:
    path = styles / "configs/tasks/chalk.yaml"
    task = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(task | {"metrics": ["fid", "fd_lite0"]}))
    with pytest.raises(UserError, match=r"configs/tasks/chalk.yaml: metrics: found 'fid' first, allowed: 'fd_lite0'"):
        load_params()


def test_a_prompt_may_hold_a_hash(styles: Path) -> None:
    path = styles / "data/eval/charcoal/images.csv"
    table = pd.read_csv(path)
    table["prompt"] = "a cat, #1"
    table.to_csv(path, index=False)
    assert set(read(styles).prompts) == {"a cat, #1"}


def test_a_distance_on_inception_is_called_fid(styles: Path) -> None:
    e = read(styles)
    assert replace(e, task=e.task.model_copy(update={"metrics": ["fid"]})).metric == "FID"
    assert e.metric == "FD-Lite0"


def test_the_stage_imports_neither_torch_nor_transformers() -> None:
    import subprocess
    import sys

    heavy = "('torch', 'transformers', 'sklearn')"
    code = f"import sys, condpdiff.style.report; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
