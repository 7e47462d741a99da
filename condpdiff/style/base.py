"""prepare-base: bring a PixArt into one folder, or train a small one there; everything after it runs offline.

transformer/ vae/ scheduler/ text_encoder/ tokenizer/ model_index.json     as diffusers writes a pipeline
features/        the networks of the Fréchet distances
source.json      where the model came from
captions.json, samples.png, autoencoder.csv, denoiser.csv   (trained) see small_pixart.py
"""

import shutil
from pathlib import Path

from condpdiff.common.errors import UserError
from condpdiff.common.files import new_directory, write_tensors
from condpdiff.common.packages import read_member
from condpdiff.common.pretrained import cannot_load, save_source
from condpdiff.common.task import Base
from condpdiff.style.metrics import FEATURES, INCEPTION, LITE0, LITE0_MEMBER, LITE0_PACKAGE, lite0_state
from condpdiff.style.models import PARTS, check_is_pixart
from condpdiff.style.small_pixart import train


def prepare_base(base: Base, out: Path) -> None:
    """Write a PixArt pipeline to `out`, with the networks of the Fréchet distances; a UserError if it is no PixArt, or
    it or a package that is needed can't be had."""
    with new_directory(out) as folder:
        if base.source == "trained":
            train(base.name, folder)
        else:
            _copy(base, folder)
        save_source(folder, base.source, base.name, base.name if base.source == "hub" else str(out))
        (folder / FEATURES).mkdir()
        write_tensors(folder / FEATURES / LITE0, lite0_state(read_member(LITE0_PACKAGE, LITE0_MEMBER), LITE0_PACKAGE))
        if base.inception is not None:
            _save_inception(base.inception, folder / FEATURES)


def _copy(base: Base, folder: Path) -> None:
    """The parts of a PixArt pipeline from a directory or the hub, as they are."""
    key = "params.yaml: base.name"
    source = Path(base.name) if base.source == "local" else _download(base.name, key)
    check_is_pixart(source, key)
    for part in PARTS:
        shutil.copytree(source / part, folder / part)
    if (source / "model_index.json").is_file():
        shutil.copy(source / "model_index.json", folder)


def _download(name: str, key: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    def fetched(*kinds: str) -> Path:
        wanted = [f"{part}/{kind}" for part in PARTS for kind in kinds]
        return Path(snapshot_download(name, allow_patterns=["model_index.json", *wanted], ignore_patterns="*fp16*"))

    try:
        check_is_pixart(fetched("*.json"), key)  # before twenty gigabytes
        return fetched("*.json", "*.safetensors", "*.model")
    except (OSError, HFValidationError, ValueError) as error:
        locally = "download it on a machine that reaches the hub and set base: {source: local, name: DIRECTORY}"
        raise cannot_load(key, f"base model {name!r} (hub)", error, locally) from None


def _save_inception(asked: str, folder: Path) -> None:
    """clean-fid's Inception, by its own download or from a file."""
    from cleanfid.downloads_helper import check_download_inception

    try:
        if asked == "download":
            check_download_inception(str(folder))
        else:
            shutil.copy(asked, folder / INCEPTION)
    except OSError as error:
        found = f"found {asked!r}: {error}; allowed: download, or the path of {INCEPTION}"
        raise UserError(f"params.yaml: base.inception: {found}") from None
