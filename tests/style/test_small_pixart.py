"""The small PixArt that prepare-base trains: a whole pipeline, the same bytes each time, one line where it can't be."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from diffusers import AutoencoderTiny, PixArtAlphaPipeline
from PIL import Image

from condpdiff.common.files import read_json, read_tensors
from condpdiff.style.base import prepare_base
from condpdiff.style.metrics import FEATURES, LITE0
from condpdiff.style.models import build_transformer, encode_images, load_transformer, load_vae, to_tensor
from condpdiff.style.small_pixart import crops_of_photographs, load_small_model, recolour
from tests.style.stand_ins_style import SIZE, TRANSFORMER, VAE, make_images, random_lite0, refusal, save_config, trained


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
    prepare_base(trained(), Path("one"))
    torch.rand(5)  # what was drawn before must not matter
    prepare_base(trained(), Path("two"))
    files = sorted(path.relative_to("one") for path in Path("one").rglob("*") if path.is_file())
    assert files == sorted(path.relative_to("two") for path in Path("two").rglob("*") if path.is_file())
    for file in files:
        if file.name != "source.json":  # names the folder
            assert (Path("one") / file).read_bytes() == (Path("two") / file).read_bytes(), file
    save_config(offline, seed=1)
    prepare_base(trained(), Path("other"))
    one, other = (load_transformer(Path(name)).state_dict() for name in ("one", "other"))
    assert not torch.equal(one["proj_out.weight"], other["proj_out.weight"])


def test_recoloured_images_stay_images_and_half_of_them_stay_as_they_are() -> None:
    torch.manual_seed(0)
    images = to_tensor(make_images(256, 0, 8))
    changed = recolour(images)
    assert changed.shape == images.shape and changed.abs().max() <= 1
    same = (changed == images).flatten(1).all(1).float().mean()
    assert 0.35 < same < 0.65


def test_published_file_of_the_small_model_fits_its_classes() -> None:
    """On the meta device; its latents, channels and caption width agree with one another."""
    model = load_small_model("pixart-small")
    with torch.device("meta"):
        vae, transformer = AutoencoderTiny(**model.vae), build_transformer(model.transformer)
    assert model.size == 64
    assert vae.config.latent_channels == transformer.config.in_channels == transformer.config.out_channels
    assert transformer.config.caption_channels == 384  # MiniLM's hidden states


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
