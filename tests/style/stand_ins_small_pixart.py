"""The small PixArt of the tests, which trains within seconds on stand-ins of photographs: drawings of nothing."""

from pathlib import Path
from typing import Any

import yaml

from condpdiff.common.task import Base
from condpdiff.style.base import prepare_base
from condpdiff.style.photographs import FRAMINGS, Photograph
from tests.messages import message_of
from tests.stand_ins import save_base, save_tokenizer
from tests.style.stand_ins_style import SCHEDULER, TRANSFORMER, VAE, make_images

PHOTOGRAPHS = [
    Photograph(subject, framing, image)
    for subject, framing, image in zip(("lovely plot", "the film"), FRAMINGS, make_images(2, 0, 80), strict=True)
]


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


def trained(**changes: Any) -> Base:
    return Base(**{"source": "trained", "name": "tiny"} | changes)


def refusal(base: Base) -> str:
    message = message_of(prepare_base, base, Path("base"))
    assert not Path("base").exists()
    return message
