"""The preset style-many-smoke: every stage for families of styles, one held out, on a base that draws nothing."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from diffusers import PixArtAlphaPipeline
from peft import PeftModel

from condpdiff.common.files import read_tensors
from condpdiff.common.task import Members, read_task
from condpdiff.report.unseen import ARMS, BEST
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


def test_a_second_repro_runs_nothing(clone: Path) -> None:
    assert stages_run(run(clone, "dvc", "repro").stdout) == set()
