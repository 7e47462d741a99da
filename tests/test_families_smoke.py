"""The preset style-many-smoke: every stage for families of styles, one held out, on a base that draws nothing."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from diffusers import PixArtAlphaPipeline
from peft import PeftModel
from PIL import Image

from condpdiff import Generator
from condpdiff.common.errors import UserError
from condpdiff.common.files import read_tensors
from condpdiff.common.task import Members, read_task
from condpdiff.report.unseen import ARMS, BEST
from condpdiff.style.conditions import pictures_of
from condpdiff.style.task import Task
from tests.clone import ROOT, run, stages_run
from tests.smoke import smoke

SMOKE = yaml.safe_load((ROOT / "configs/style-many-smoke.yaml").read_text(encoding="utf-8"))
FAMILIES: list[str] = SMOKE["tasks"]
OF_TEXT = {"cosine", *(arm for arm in ARMS if "@" in arm)}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smoke(tmp_path_factory.mktemp("families-smoke"), "style-many-smoke")


@pytest.fixture(autouse=True)
def _in_clone(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)


def members_of(family: str) -> Members:
    found = read_task(family, Task).members
    assert found is not None
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_every_arm_has_distances_of_every_member(family: str) -> None:
    arms, members = pd.read_csv(Path("data/eval", family, "arms.csv")), members_of(family)
    assert np.isfinite(arms[["rmse", "lpips_lite0", "fd_lite0"]]).all(axis=None)
    unseen = arms[arms["tier"] == "unseen"]
    assert set(ARMS) - OF_TEXT - {BEST} <= set(unseen["arm"]) and set(unseen["member"]) == set(range(members.unseen))
    assert ("seen" in set(arms["tier"])) == (members.train > 0)
    assert (unseen["arm"] == "condpdiff").sum() == members.unseen * SMOKE["sample"]["count"]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_member_that_was_not_trained_on_has_an_adapter_that_is_one_of_its_samples(family: str) -> None:
    members = members_of(family)
    assert {path.name for path in Path("data/adapters", family).iterdir()} == set(
        map(str, members.of("unseen", "tuning"))
    )
    pipe = PixArtAlphaPipeline.from_pretrained("data/base")
    model = PeftModel.from_pretrained(pipe.transformer, f"data/adapters/{family}/0")
    found = torch.cat([p.flatten() for name, p in model.named_parameters() if ".lora_" in name])
    samples = read_tensors(Path("data/samples", f"{family}.safetensors"))["theta"][0]
    assert any(torch.allclose(found, sample, atol=1e-6) for sample in samples)


def test_page_says_whose_style_came_out_and_metrics_what_share_of_the_gap_is_closed() -> None:
    page = Path("report/index.html").read_text(encoding="utf-8")
    assert "Does the condition choose?" in page and page.count("data:image/png;base64,") > 20
    metrics = json.loads(Path("report/metrics.json").read_text(encoding="utf-8"))
    groups = {"known", "held_out", "seen", "tuning_known", "tuning_held_out"}
    assert groups <= set(metrics) and all(np.isfinite(metrics[group]["condpdiff"]) for group in groups)


def test_pictures_become_an_adapter_that_diffusers_loads_and_training_goes_on_from_it(
    clone: Path, tmp_path: Path
) -> None:
    """In a folder with nothing but the generator: the base model is inside."""
    run(clone, "condpdiff", "pack", str(tmp_path / "generator"))
    pictures = pictures_of(Path("data/tasks", FAMILIES[0]), 0)
    for i, picture in enumerate(pictures[:3]):
        Image.fromarray(picture).resize((90, 70)).save(tmp_path / f"{i}.png")
    told = ["--style-image", *(f"{i}.png" for i in range(3)), "--samples", "2"]
    said = run(tmp_path, "condpdiff", "generate", "generator", *told, "--steps", "4", PYTHONPATH=str(ROOT)).stdout
    assert re.search(r"^note: of the way from the mean soup to a style's own LoRA it went -?\d+ %", said, re.MULTILINE)
    assert len(re.findall(r"4 steps: loss \d\.\d+ -> \d\.\d+ on 3 pictures", said)) == 2
    pipe = PixArtAlphaPipeline.from_pretrained(tmp_path / "generator/base")
    model = PeftModel.from_pretrained(pipe.transformer, tmp_path / "adapters/0")
    assert any(p.abs().sum() > 0 for name, p in model.named_parameters() if ".lora_B." in name)
    made_by = Generator.from_pretrained(tmp_path / "generator")
    loras = made_by.generate(pictures=[tmp_path / f"{i}.png" for i in range(3)], samples=2)
    assert not torch.equal(loras[0].theta, loras[1].theta)
    with pytest.raises(UserError, match="pictures: found 11, allowed: 1 to 10"):
        made_by.generate(pictures=[pictures[0]] * 11)


def test_a_second_repro_runs_nothing(clone: Path) -> None:
    assert stages_run(run(clone, "dvc", "repro").stdout) == set()
