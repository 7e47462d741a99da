"""The preset style-smoke: every stage of the style domain on real photographs, with a base model that draws nothing."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from diffusers import PixArtAlphaPipeline
from peft import PeftModel
from PIL import Image

from condpdiff.common.files import read_tensors
from condpdiff.report.arms import ARMS
from condpdiff.report.summary import HEADLINE
from condpdiff.style.score import Scorer
from condpdiff.style.task import load_task
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.layout import Layout, unflatten
from tests.clone import ROOT, run, stages_run
from tests.smoke import smoke

SMOKE = yaml.safe_load((ROOT / "configs/style-smoke.yaml").read_text(encoding="utf-8"))
STYLES: list[str] = SMOKE["tasks"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smoke(tmp_path_factory.mktemp("style-smoke"), "style-smoke")


@pytest.fixture(autouse=True)
def _in_clone(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)


@pytest.mark.parametrize("style", STYLES)
def test_every_arm_has_a_distance_and_every_lora_a_select_score(style: str) -> None:
    scores = pd.read_csv(Path("data/eval", style, "scores.csv"))
    assert list(dict.fromkeys(scores["arm"])) == ["floor", "no_lora", *ARMS]
    assert np.isfinite(scores["validation"]).all() and (scores["validation"] >= 0).all()
    assert scores["select"].notna().tolist() == (scores["arm"] != "floor").tolist()
    assert (scores["arm"] == "condpdiff").sum() == SMOKE["sample"]["count"]


@pytest.mark.parametrize("style", STYLES)
def test_images_carry_their_prompt_and_seed(style: str) -> None:
    folder = Path("data/eval", style)
    listed = pd.read_csv(folder / "images.csv")
    assert {"real", "no_lora", "original", "soup", "condpdiff"} <= set(listed["arm"])
    for row in listed.itertuples():
        image = Image.open(folder / str(row.file))
        assert image.size == (64, 64)
        assert image.info["prompt"] == row.prompt
        if row.arm != "real":
            assert int(image.info["seed"]) == row.seed


@pytest.mark.parametrize("style", STYLES)
def test_the_adapter_loads_into_the_pipeline_and_draws_what_was_scored(style: str) -> None:
    """As the model card says; `images.csv` has the first images of the selected candidate."""
    folder = Path("data/eval", style)
    listed = pd.read_csv(folder / "images.csv")
    first = listed[listed["arm"] == "condpdiff"].iloc[0]
    pipe = PixArtAlphaPipeline.from_pretrained("data/base")
    pipe.transformer = PeftModel.from_pretrained(pipe.transformer, f"data/adapters/{style}").eval()
    zoo = load_zoo(Path("data/zoo", style))
    found = read_tensors(Path("data/adapters", style, "adapter_model.safetensors"))
    assert set(found) == set(unflatten(torch.zeros(Layout.load(Path("data/zoo", style)).K), zoo.layout))

    scorer = Scorer(Path("data/base"), zoo, load_task(style), {}, 2048)
    bare = scorer.generate([first.prompt], [int(first.seed)], SMOKE["eval"]["image_steps"], 1.0)
    scorer.pipe.transformer = pipe.transformer
    drawn = scorer.generate([first.prompt], [int(first.seed)], SMOKE["eval"]["image_steps"], 1.0)
    scored = np.asarray(Image.open(folder / first.file)).astype(int)
    off = {name: np.abs(image[0].astype(int) - scored) for name, image in {"bare": bare, "drawn": drawn}.items()}
    assert off["drawn"].max() <= 1  # another order of summing
    assert off["bare"].sum() > off["drawn"].sum()  # the adapter does something, little as it was trained


def test_metrics_are_distances_of_every_style() -> None:
    metrics = json.loads(Path("report/metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) >= {*STYLES, "average", "tasks_not_learned", "condition_effect", "settings"}
    assert np.isfinite(metrics["condition_effect"])
    for style in STYLES:
        assert set(metrics[style]) == set(HEADLINE["task"])
        floor = pd.read_csv(Path("data/eval", style, "scores.csv")).query("arm == 'floor'")["validation"].iloc[0]
        assert metrics[style]["condpdiff"] > floor > 0


def test_report_is_one_page_with_its_images_inside() -> None:
    page = Path("report/index.html").read_text(encoding="utf-8")
    assert "FD-Lite0" in page and page.count("data:image/png;base64,") > 10
    assert "<script src" not in page and 'src="http' not in page and "url(http" not in page


def test_a_second_repro_runs_nothing_and_git_sees_what_it_should(clone: Path) -> None:
    assert stages_run(run(clone, "dvc", "repro").stdout) == set()
    status = run(clone, "git", "status", "--porcelain", "--untracked-files=all").stdout
    assert {line[3:] for line in status.splitlines()} == {"dvc.lock", "params.yaml", "report/metrics.json"}
