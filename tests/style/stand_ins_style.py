"""Random stand-ins of styles: a tiny PixArt base, made-up images, zoos. Nothing here was trained on anything."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from diffusers import AutoencoderKL, AutoencoderTiny, DPMSolverMultistepScheduler
from PIL import Image

from condpdiff.common.files import write_json, write_tensors
from condpdiff.common.pretrained import save_source
from condpdiff.common.settings import parse
from condpdiff.common.task import Base
from condpdiff.style.base import prepare_base
from condpdiff.style.images import encode_png
from condpdiff.style.metrics import FEATURES, LITE0, Lite0
from condpdiff.style.models import ATTENTION, build_transformer, peft_transformer
from condpdiff.style.photographs import FRAMINGS, Photograph
from condpdiff.style.small_pixart import save_index
from condpdiff.style.task import Task
from condpdiff.zoo.checkpoints import Zoo, layout_of
from tests.messages import message_of
from tests.stand_ins import HIDDEN, save_base, save_tokenizer

SIZE = 32  # pixels a side of the stand-in's images; its latents are 8 x 8
CAPTIONS = ["the film was good", "a really awful plot", "lovely", "the plot was poor"]  # in words that it knows
TRANSFORMER: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 4}
TRANSFORMER |= {"num_layers": 2, "cross_attention_dim": 16, "sample_size": 8, "patch_size": 2}
TRANSFORMER |= {"caption_channels": HIDDEN, "norm_type": "ada_norm_single"}
VAE: dict[str, Any] = {f"{side}_block_out_channels": [8, 8, 8] for side in ("encoder", "decoder")}
VAE |= {"num_encoder_blocks": [1, 1, 1], "num_decoder_blocks": [1, 1, 1], "latent_channels": 4, "scaling_factor": 0.8}
SCHEDULER = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 2e-2, "beta_schedule": "linear"}
SCHEDULER |= {"prediction_type": "epsilon"}


def save_style_base(folder: Path, **transformer: object) -> Path:
    """A random PixArt with a random text encoder, as prepare-base leaves a real one; keys of TRANSFORMER may change."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = build_transformer({**TRANSFORMER, **transformer})
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)  # far enough from 0 that captions make a difference
    model.save_pretrained(folder / "transformer")
    AutoencoderTiny(**VAE).save_pretrained(folder / "vae")
    DPMSolverMultistepScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    save_base("bert", folder / "text_encoder")
    save_tokenizer(folder / "tokenizer")
    save_index(folder, "BertModel", "PreTrainedTokenizerFast", "AutoencoderTiny")
    (folder / FEATURES).mkdir()
    write_tensors(folder / FEATURES / LITE0, random_lite0())
    save_source(folder, "trained", "tiny", str(folder))
    write_json(folder / "captions.json", CAPTIONS)
    return folder


def save_published_classes(folder: Path) -> Path:
    """The same of the classes of PixArt-alpha's published parts: T5, AutoencoderKL, a transformer with a variance."""
    from transformers import T5Config, T5EncoderModel

    save_style_base(folder, out_channels=2 * TRANSFORMER["in_channels"])
    for part in ("vae", "text_encoder"):
        shutil.rmtree(folder / part)
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3}
    AutoencoderKL(**kinds, block_out_channels=[8] * 3, norm_num_groups=4).save_pretrained(folder / "vae")
    text = T5Config(d_model=HIDDEN, d_ff=2 * HIDDEN, d_kv=8, num_heads=2, num_layers=2, vocab_size=500)
    T5EncoderModel(text).save_pretrained(folder / "text_encoder")
    save_index(folder, "T5EncoderModel", "PreTrainedTokenizerFast", "AutoencoderKL")
    return folder


@cache
def random_lite0() -> dict[str, torch.Tensor]:
    """Weights of an EfficientNet-Lite0 that has learned nothing."""
    torch.manual_seed(0)
    return Lite0().state_dict()


def make_images(count: int, seed: int, size: int = SIZE) -> np.ndarray:
    """Smooth colour gradients: uint8 [count, size, size, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 3, 3, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC)) for one in coarse])


def make_style_rows(count: int, seed: int, size: int = SIZE) -> pd.DataFrame:
    """Rows of a prepared style: captions in turn, and images as PNG."""
    rows = [(CAPTIONS[i % len(CAPTIONS)], encode_png(image)) for i, image in enumerate(make_images(count, seed, size))]
    return pd.DataFrame(rows, columns=["caption", "image"])


def make_family(source: dict[str, Any], unseen: int = 1, tuning: int = 1, train: int = 2, **condition: Any) -> Task:
    """A family's file."""
    task = {
        "data": {"size": SIZE, "source": source},
        "members": {"unseen": unseen, "tuning": tuning, "train": train},
        "condition": {"description": "Waves", "images": 3, "draws": 4} | condition,
        "metrics": ["fd_lite0"],
        "finetune": {"steps": 6, "batch_size": 4, "lr": 0.01},
    }
    return parse(Task, task, "family.yaml")


def make_style_zoo(base: Path, count: int = 6) -> Zoo:
    """A zoo of random checkpoints for a base."""
    layout = layout_of(peft_transformer(base, 0, 2, 4.0, "auto"))
    theta = 0.1 * torch.randn(count, layout.K, generator=torch.Generator().manual_seed(1))
    config = {"rank": 2, "alpha": 4.0, "task": "waves", "modules_to_save": [], "task_type": None}
    return Zoo(theta, layout, {}, config | {"target_modules": sorted(ATTENTION)})


# --- the small PixArt, which trains within seconds on drawings of nothing ------------------------

PHOTOGRAPHS = [
    Photograph(subject, framing, image)
    for subject, framing, image in zip(("lovely plot", "the film"), FRAMINGS, make_images(2, 0, 80), strict=True)
]


def save_config(folder: Path, steps: int = 40, **changes: Any) -> None:
    """configs/models/tiny.yaml of a model that trains within seconds, and its text encoder."""
    text = folder / "text"
    if not text.exists():
        save_base("bert", text)
        save_tokenizer(text)
    vae = {key: value for key, value in VAE.items() if key != "scaling_factor"}
    training = {"steps": steps, "batch_size": 4, "lr": 2e-3}
    config: dict[str, Any] = {
        "transformer": TRANSFORMER,
        "vae": vae,
        "scheduler": {**SCHEDULER, "prediction_type": "v_prediction"},
        "text_encoder": {"source": "local", "name": str(text)},
        "photographs": {"crops": 3},
        "autoencoder": training,
        "denoiser": {**training, "caption_dropout": 0.1},
        "seed": 0,
    }
    path = folder / "configs/models/tiny.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**config, **changes}))


def trained(**changes: Any) -> Base:
    return Base(**{"source": "trained", "name": "tiny"} | changes)


def refusal(base: Base) -> str:
    message = message_of(prepare_base, base, Path("base"))
    assert not Path("base").exists()
    return message
