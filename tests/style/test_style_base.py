"""prepare-base: a small PixArt trained on photographs, or a given one brought here; the same bytes each time."""

import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from diffusers import AutoencoderTiny, PixArtAlphaPipeline
from PIL import Image

from condpdiff.errors import UserError
from condpdiff.files import read_json, read_tensors
from condpdiff.params.base import Base
from condpdiff.photographs import FRAMINGS
from condpdiff.small_pixart import crops_of_photographs, load_small_model, recolour
from condpdiff.style import base as module
from condpdiff.style.base import prepare_base
from condpdiff.style.metrics import FEATURES, INCEPTION, LITE0
from condpdiff.style.models import encode_images, load_transformer, load_vae
from condpdiff.style.rows import to_tensor
from tests.stand_ins import save_base, save_tokenizer
from tests.style.stand_ins_style import SCHEDULER, SIZE, TRANSFORMER, VAE, make_images, random_lite0, save_style_base

SUBJECTS = ("lovely plot", "the film")


def save_config(folder: Path, **changes: Any) -> None:
    """configs/models/tiny.yaml of a model that trains within seconds, and its text encoder."""
    text = folder / "text"
    if not text.exists():
        save_base("bert", text)
        save_tokenizer(text)
    config: dict[str, Any] = {
        "transformer": TRANSFORMER,
        "vae": {key: value for key, value in VAE.items() if key != "scaling_factor"},
        "scheduler": {**SCHEDULER, "prediction_type": "v_prediction"},
        "text_encoder": {"source": "local", "name": str(text)},
        "photographs": {"crops": 3},
        "autoencoder": {"steps": 40, "batch_size": 4, "lr": 2e-3},
        "denoiser": {"steps": 40, "batch_size": 4, "lr": 2e-3, "caption_dropout": 0.1},
        "seed": 0,
    }
    path = folder / "configs/models/tiny.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**config, **changes}))


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the tiny model's file; photographs and the package's weights are stand-ins."""
    weights = BytesIO()
    torch.save(random_lite0(), weights)
    monkeypatch.setattr(module, "read_member", lambda *_: weights.getvalue())
    monkeypatch.setattr(module, "photographs", lambda: list(zip(SUBJECTS, make_images(2, 0, 80), strict=True)))
    monkeypatch.chdir(tmp_path)
    save_config(tmp_path)
    return tmp_path


def trained(**changes: Any) -> Base:
    return Base(**{"source": "trained", "name": "tiny"} | changes)


def message_of(base: Base) -> str:
    with pytest.raises(UserError) as error:
        prepare_base(base, Path("base"))
    assert not Path("base").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


# --- trained ------------------------------------------------------------------------------------


def test_trained_base_is_a_whole_pipeline_that_diffusers_loads(offline: Path) -> None:
    prepare_base(trained(), Path("base"))
    assert read_json(Path("base/source.json")) == {"source": "trained", "name": "tiny", "load": "base"}
    pipe = PixArtAlphaPipeline.from_pretrained("base")
    pipe.set_progress_bar_config(disable=True)
    asked = {"use_resolution_binning": False, "num_inference_steps": 2, "max_sequence_length": 32}
    assert pipe(read_json(Path("base/captions.json"))[0], **asked).images[0].size == (SIZE, SIZE)
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert read_tensors(Path("base") / FEATURES / LITE0).keys() == random_lite0().keys()


def test_captions_are_every_subject_in_every_framing_and_the_sheet_shows_a_column_a_subject(offline: Path) -> None:
    prepare_base(trained(), Path("base"))
    captions = read_json(Path("base/captions.json"))
    assert captions == [f"a photograph of {subject}, {framing}" for subject in SUBJECTS for framing in FRAMINGS]
    assert Image.open("base/samples.png").size == (len(SUBJECTS) * SIZE, 5 * SIZE)


def test_both_losses_fall(offline: Path) -> None:
    more = {"steps": 120, "batch_size": 8, "lr": 4e-3}
    save_config(offline, autoencoder=more, denoiser={**more, "caption_dropout": 0.1})
    prepare_base(trained(), Path("base"))
    for name in ("autoencoder", "denoiser"):
        curve = pd.read_csv(f"base/{name}.csv")
        assert curve.columns.tolist() == ["step", "loss"]
        assert curve["loss"].iloc[-1] < 0.8 * curve["loss"].iloc[0], name


def test_same_settings_give_the_same_bytes_whatever_was_drawn_before(offline: Path) -> None:
    prepare_base(trained(), Path("one"))
    torch.rand(5)
    prepare_base(trained(), Path("two"))
    files = sorted(path.relative_to("one") for path in Path("one").rglob("*") if path.is_file())
    assert files == sorted(path.relative_to("two") for path in Path("two").rglob("*") if path.is_file())
    for file in files:
        if file.name != "source.json":  # names the folder
            assert (Path("one") / file).read_bytes() == (Path("two") / file).read_bytes(), file


def test_seed_of_the_model_changes_its_weights(offline: Path) -> None:
    prepare_base(trained(), Path("one"))
    save_config(offline, seed=1)
    prepare_base(trained(), Path("two"))
    one, two = (load_transformer(Path(name)).state_dict() for name in ("one", "two"))
    assert not torch.equal(one["proj_out.weight"], two["proj_out.weight"])


def test_latents_of_the_crops_have_a_standard_deviation_of_one(offline: Path) -> None:
    prepare_base(trained(), Path("base"))
    _, crops = crops_of_photographs(load_small_model("tiny").photographs, SIZE)
    latents = encode_images(load_vae(Path("base")), to_tensor(crops.reshape(-1, SIZE, SIZE, 3)))
    assert latents.std().item() == pytest.approx(1.0, abs=1e-3)


def test_crops_stand_by_caption(offline: Path) -> None:
    captions, crops = crops_of_photographs(load_small_model("tiny").photographs, SIZE)
    assert crops.shape == (len(captions), 3, SIZE, SIZE, 3) and crops.dtype == np.uint8
    assert not np.array_equal(crops[0, 0], crops[0, 1])
    assert np.array_equal(crops, crops_of_photographs(load_small_model("tiny").photographs, SIZE)[1])


def test_recoloured_images_stay_images_and_half_of_them_stay_as_they_are() -> None:
    torch.manual_seed(0)
    images = to_tensor(make_images(256, 0, 8))
    changed = recolour(images)
    assert changed.shape == images.shape and changed.abs().max() <= 1
    same = (changed == images).flatten(1).all(1).float().mean()
    assert 0.35 < same < 0.65


def test_published_file_of_the_small_model_fits_its_classes() -> None:
    """On the meta device; its latents, channels and caption width agree with one another."""
    from condpdiff.style.models import build_transformer

    model = load_small_model("pixart-small")
    with torch.device("meta"):
        vae, transformer = AutoencoderTiny(**model.vae), build_transformer(model.transformer)
    assert model.size == 64
    assert vae.config.latent_channels == transformer.config.in_channels == transformer.config.out_channels
    assert transformer.config.caption_channels == 384  # MiniLM's hidden states


# --- given --------------------------------------------------------------------------------------


def test_local_pixart_is_copied_as_it_is(offline: Path) -> None:
    save_style_base(Path("given"))
    prepare_base(Base(source="local", name="given"), Path("base"))
    assert read_json(Path("base/source.json")) == {"source": "local", "name": "given", "load": "base"}
    for path in Path("given").rglob("*"):
        part = path.relative_to("given").parts[0]
        if path.is_file() and part in (*module.PARTS, "model_index.json"):
            assert (Path("base") / path.relative_to("given")).read_bytes() == path.read_bytes()
    assert not Path("base/captions.json").exists()


@pytest.mark.parametrize("name", ["given", "nowhere"])
def test_folder_that_is_no_pixart_is_refused(name: str, offline: Path) -> None:
    save_base("bert", Path("given"))
    message = message_of(Base(source="local", name=name))
    assert message.startswith(
        f"params.yaml: base.name: found {name!r} without transformer/config.json, allowed: a PixArt"
    )


def test_pipeline_around_another_transformer_is_refused(offline: Path) -> None:
    path = save_style_base(Path("given")) / "transformer/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "SD3Transformer2DModel"}))
    message = message_of(Base(source="local", name="given"))
    assert message == (
        "params.yaml: base.name: found a transformer of class SD3Transformer2DModel, allowed: PixArtTransformer2DModel"
    )


def test_hub_pixart_comes_from_a_snapshot_and_adapters_name_its_id(
    offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def snapshot(name: str, **patterns: Any) -> str:
        asked.update(patterns, name=name)
        return str(save_style_base(offline / "snapshot"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    prepare_base(Base(source="hub", name="some/pixart"), Path("base"))
    assert read_json(Path("base/source.json"))["load"] == "some/pixart"
    assert asked["name"] == "some/pixart"
    assert {"transformer/*.safetensors", "tokenizer/*.model"} <= set(asked["allow_patterns"])


def test_no_weights_are_downloaded_of_what_is_no_pixart(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def snapshot(name: str, allow_patterns: list[str], **rest: Any) -> str:
        asked.append(allow_patterns)
        path = save_style_base(offline / "snapshot") / "transformer/config.json"
        path.write_text(path.read_text().replace("PixArtTransformer2DModel", "UNet2DConditionModel"))
        return str(path.parent.parent)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert "found a transformer of class UNet2DConditionModel" in message_of(Base(source="hub", name="some/unet"))
    assert not any("safetensors" in pattern for patterns in asked for pattern in patterns)


def test_unreachable_hub_says_how_to_give_the_model_locally(no_hub: None, offline: Path) -> None:
    message = message_of(Base(source="hub", name="some/pixart"))
    assert message.startswith("params.yaml: base.name: base model 'some/pixart' (hub) can't be loaded (")
    assert message.endswith("set base: {source: local, name: DIRECTORY}")


# --- Inception, wrong settings ------------------------------------------------------------------


def test_inception_is_copied_from_its_file(offline: Path) -> None:
    Path("inception.pt").write_bytes(b"network")
    save_style_base(Path("given"))
    prepare_base(Base(source="local", name="given", inception="inception.pt"), Path("base"))
    assert (Path("base") / FEATURES / INCEPTION).read_bytes() == b"network"


def test_inception_is_downloaded_by_clean_fid(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_style_base(Path("given"))
    monkeypatch.setattr(
        "cleanfid.downloads_helper.check_download_inception",
        lambda folder: (Path(folder) / INCEPTION).write_bytes(b"x"),
    )
    prepare_base(Base(source="local", name="given", inception="download"), Path("base"))
    assert (Path("base") / FEATURES / INCEPTION).is_file()


@pytest.mark.parametrize("asked", ["download", "nowhere.pt"])
def test_inception_that_cannot_be_had_is_one_line(asked: str, offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("cleanfid.downloads_helper.check_download_inception", refuse)
    save_style_base(Path("given"))
    message = message_of(Base(source="local", name="given", inception=asked))
    assert message.startswith(f"params.yaml: base.inception: found {asked!r}: ")
    assert message.endswith(f"allowed: download, or the path of {INCEPTION}")


def test_unknown_small_model_names_the_nearest(offline: Path) -> None:
    shutil.copy("configs/models/tiny.yaml", "configs/models/other.yaml")
    Path("configs/models/published.yaml").write_text("transformer: {}")  # an architecture, nothing to train
    message = message_of(trained(name="tinny"))
    assert message == (
        "params.yaml: base.name: found 'tinny' (did you mean 'tiny'?), allowed with source: trained: other, tiny"
    )


def test_misspelt_key_of_a_small_model_is_one_line(offline: Path) -> None:
    save_config(offline, photographs={"crop": 3})
    assert message_of(trained()).startswith("configs/models/tiny.yaml: unknown key 'photographs.crop'")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vae": {**VAE, "block": 3}}, "vae: unknown key 'block'; see AutoencoderTiny"),
        (
            {"scheduler": {"beta_begin": 1e-4}},
            "scheduler: unknown key 'beta_begin' (did you mean 'beta_end'?); see DPM",
        ),
        ({"vae": {**VAE, "latent_channels": 8}}, "transformer.in_channels: found 4, allowed: vae.latent_channels = 8"),
        (
            {"transformer": {**TRANSFORMER, "caption_channels": 9}},
            "transformer.caption_channels: found 9, allowed: the text encoder's 16",
        ),
    ],
)
def test_classes_that_do_not_fit_are_one_line_before_anything_is_trained(
    changes: dict[str, Any], said: str, offline: Path
) -> None:
    save_config(offline, **changes)
    assert message_of(trained()).startswith(f"configs/models/tiny.yaml: {said}")
