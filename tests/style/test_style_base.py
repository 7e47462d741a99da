"""prepare-base of styles: a PixArt that is given or a small one that is trained, or one line where it can't be."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from diffusers import PixArtAlphaPipeline
from PIL import Image
from torch import nn

from condpdiff.common.files import read_json, read_tensors
from condpdiff.common.task import Base
from condpdiff.style import base as module
from condpdiff.style.base import prepare_base
from condpdiff.style.metrics import FEATURES, INCEPTION, LITE0
from condpdiff.style.models import encode_images, load_vae, to_tensor
from condpdiff.style.small_pixart import MUON_RATE, MuonAdamW, crops_of_photographs, load_small_model
from tests.stand_ins import save_base
from tests.style.stand_ins_style import (
    SIZE,
    TRANSFORMER,
    VAE,
    random_lite0,
    refusal,
    save_config,
    save_style_base,
    trained,
)


def test_local_pixart_is_copied_as_it_is(base: Path, offline: Path) -> None:
    prepare_base(Base(source="local", name=str(base)), Path("base"))
    assert read_json(Path("base/source.json")) == {"source": "local", "name": str(base), "load": "base"}
    for path in base.rglob("*"):
        if path.is_file() and path.relative_to(base).parts[0] in (*module.PARTS, "model_index.json"):
            assert (Path("base") / path.relative_to(base)).read_bytes() == path.read_bytes()
    assert not Path("base/captions.json").exists()


def test_folder_that_is_no_pixart_and_unreachable_hub_are_one_line(no_hub: None, offline: Path) -> None:
    save_base("bert", Path("given"))
    said = "params.yaml: base.name: found 'given' without transformer/config.json, allowed: a PixArt"
    assert refusal(Base(source="local", name="given")).startswith(said)
    message = refusal(Base(source="hub", name="some/pixart"))
    assert message.startswith("params.yaml: base.name: base model 'some/pixart' (hub) can't be loaded (")
    assert message.endswith("set base: {source: local, name: DIRECTORY}")


def test_hub_pixart_comes_from_a_snapshot_and_no_other_weights(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    published = save_style_base(offline / "snapshot")

    def snapshot(name: str, allow_patterns: list[str], **_: Any) -> str:
        assert name == "some/pixart"
        asked.extend(allow_patterns)
        return str(published)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    hub = Base(source="hub", name="some/pixart")
    prepare_base(hub, Path("base"))
    assert read_json(Path("base/source.json"))["load"] == "some/pixart"  # what adapters name
    assert {"transformer/*.safetensors", "tokenizer/*.model"} <= set(asked)

    shutil.rmtree("base")
    asked.clear()
    path = published / "transformer/config.json"
    path.write_text(path.read_text().replace("PixArtTransformer2DModel", "UNet2DConditionModel"))
    assert "found a transformer of class UNet2DConditionModel" in refusal(hub)
    assert not any("safetensors" in pattern for pattern in asked)


@pytest.mark.parametrize("asked", ["download", "inception.pt"])
def test_inception_comes_or_is_one_line(asked: str, base: Path, offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(folder: str) -> None:
        (Path(folder) / INCEPTION).write_bytes(Path("inception.pt").read_bytes())  # fails without that file

    monkeypatch.setattr("cleanfid.downloads_helper.check_download_inception", download)
    wanted = Base(source="local", name=str(base), inception=asked)
    message = refusal(wanted)
    assert message.startswith(f"params.yaml: base.inception: found {asked!r}: ")
    assert message.endswith(f"allowed: download, or the path of {INCEPTION}")
    Path("inception.pt").write_bytes(b"network")
    prepare_base(wanted, Path("base"))
    assert (Path("base") / FEATURES / INCEPTION).read_bytes() == b"network"


def test_trained_base_is_a_whole_pipeline_that_diffusers_loads(offline: Path) -> None:
    prepare_base(trained(), Path("base"))
    assert read_json(Path("base/source.json")) == {"source": "trained", "name": "tiny", "load": "base"}
    for name in ("autoencoder", "denoiser"):
        curve = pd.read_csv(f"base/{name}.csv")
        assert curve.columns.tolist() == ["step", "loss"]
        assert curve["loss"].iloc[-1] < curve["loss"].iloc[0], name
    captions = read_json(Path("base/captions.json"))
    assert captions == ["a photograph of lovely plot, whole", "a photograph of the film, close-up"]
    assert Image.open("base/samples.png").size == (2 * SIZE, 5 * SIZE)  # a column of each caption
    pipe = PixArtAlphaPipeline.from_pretrained("base")
    pipe.set_progress_bar_config(disable=True)
    asked = {"use_resolution_binning": False, "num_inference_steps": 2, "max_sequence_length": 32}
    assert pipe(captions[0], **asked).images[0].size == (SIZE, SIZE)
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert read_tensors(Path("base") / FEATURES / LITE0).keys() == random_lite0().keys()
    _, crops = crops_of_photographs(load_small_model("tiny").photographs, SIZE)
    latents = encode_images(load_vae(Path("base")), to_tensor(crops.reshape(-1, SIZE, SIZE, 3)))
    assert latents.std().item() == pytest.approx(1.0, abs=1e-3)


def test_same_settings_give_the_same_bytes_and_another_seed_others(offline: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        save_config(offline, steps=2, seed=seed)
        torch.rand(5)  # what was drawn before must not matter
        prepare_base(trained(), Path(name))
    one, two, other = (
        {path.relative_to(name): path.read_bytes() for path in Path(name).rglob("*") if path.is_file()}
        for name in ("one", "two", "other")
    )
    assert one.keys() == two.keys()
    assert [file.name for file in one if one[file] != two[file]] == ["source.json"]  # names the folder
    weights = Path("transformer/diffusion_pytorch_model.safetensors")
    assert one[weights] != other[weights]


def test_unknown_small_model_names_the_nearest(offline: Path) -> None:
    shutil.copy("configs/models/tiny.yaml", "configs/models/other.yaml")
    Path("configs/models/published.yaml").write_text("transformer: {}")  # an architecture, nothing to train
    said = "base.name: found 'tinny' (did you mean 'tiny'?), allowed with source: trained: other, tiny"
    assert refusal(trained(name="tinny")) == f"params.yaml: {said}"


@pytest.mark.parametrize(
    ("part", "keys", "said"),
    [
        ("photographs", {"crop": 3}, "unknown key 'photographs.crop'"),
        ("vae", {**VAE, "block": 3}, "vae: unknown key 'block'; see AutoencoderTiny"),
        ("scheduler", {"beta_begin": 1e-4}, "scheduler: unknown key 'beta_begin' (did you mean 'beta_end'?); see DPM"),
        ("vae", {**VAE, "latent_channels": 8}, "transformer.in_channels: found 4, allowed: vae.latent_channels = 8"),
        ("transformer", {**TRANSFORMER, "caption_channels": 9}, "transformer.caption_channels: found 9, allowed: the"),
    ],
)
def test_keys_that_do_not_fit_are_found_first(part: str, keys: dict[str, Any], said: str, offline: Path) -> None:
    save_config(offline, **{part: keys})
    assert refusal(trained()).startswith(f"configs/models/tiny.yaml: {said}")


# --- Muon and AdamW as one optimizer ------------------------------------------------------------


def model(*shapes: tuple[int, int]) -> nn.ModuleDict:
    torch.manual_seed(0)
    inner = nn.Sequential(*(nn.Linear(inside, out) for out, inside in shapes))
    return nn.ModuleDict({"inner": inner, "outer": nn.Linear(5, 3)})


@pytest.mark.parametrize("prepared", [False, True])
def test_both_step_at_the_rates_of_a_schedule(prepared: bool) -> None:
    network = model((5, 6))
    optimizer = MuonAdamW(network, 1e-3, inside="inner")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step > 0))
    if prepared:
        optimizer.load_state_dict(optimizer.state_dict())  # as Accelerate does, which gives it other groups
    moved = []
    for _ in range(2):
        before = [p.detach().clone() for p in network.parameters()]
        for p in network.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
        schedule.step()
        moved.append([not torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True)])
    assert moved == [[False] * 4, [True] * 4]
    assert [group["lr"] for group in optimizer.param_groups] == [MUON_RATE, 1e-3]


def test_steps_are_those_of_torchs_muon_up_to_its_bf16_and_of_torchs_adamw() -> None:
    ours, theirs = (model((16, 8), (8, 16), (16, 8)) for _ in range(2))
    start = [p.detach().clone() for p in ours.parameters()]
    matrices, others = ([p for p in theirs["inner"].parameters() if p.dim() == d] for d in (2, 1))
    muon = torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.0)
    adamw = torch.optim.AdamW([*others, *theirs["outer"].parameters()], lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    optimizer = MuonAdamW(ours, 1e-3, inside="inner")
    for _ in range(4):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for each in (optimizer, muon, adamw):
            each.step()
    for one, other, first in zip(ours.parameters(), theirs.parameters(), start, strict=True):
        assert (one - other).norm() < 0.02 * (one - first).norm()
