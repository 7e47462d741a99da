"""LoRA files as people have them, read and written.

PEFT        a folder: adapter_model.safetensors, adapter_config.json
diffusers   pytorch_lora_weights.safetensors, of diffusers' training scripts and SimpleTuner
kohya       one file of keys `lora_unet_...lora_down.weight`, with an alpha beside each matrix

Pickles are never opened. What a merge W0 + (alpha / r) B A does not hold is an error that names it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condpdiff.common.errors import UserError
from condpdiff.common.files import open_tensors, read_json, read_tensors, write_tensors
from condpdiff.zoo.placed import PREFIX

CONFIG, PEFT_FILE, DIFFUSERS_FILE = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "pytorch_lora_weights.safetensors",
)
LABELS = "labels.json"
PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
METADATA = "lora_adapter_metadata"
"""Where diffusers keeps PEFT's configuration inside its file."""
IGNORED = {
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "revision"),
    *("lora_alpha", "lora_dropout", "modules_to_save", "r", "target_modules", "task_type", "exclude_modules"),
    *("corda_config", "eva_config", "init_lora_weights", "layers_pattern", "lora_ga_config", "megatron_core"),
    *("ensure_weight_tying", "loftq_config", "qalora_group_size", "runtime_config"),
}
"""Keys of PEFT's configuration that change nothing of W0 + (alpha / r) B A; any other one must be empty."""
STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Ways of drawing A and B that leave W0 as it is."""


@dataclass(frozen=True)
class Adapter:
    """One LoRA, and the head that was trained with it."""

    tensors: dict[str, Tensor]
    """LoRA matrices and head by PEFT key, without an adapter's name: float32."""
    rank: int
    alpha: float
    base: str | None = None
    """What the base model is called; None where a file does not say."""
    config: dict[str, Any] = field(default_factory=dict)
    """`target_modules`, `modules_to_save`, `task_type`, as PEFT has them."""
    labels: list[str] | None = None
    """Class names in the order of their indices."""

    @property
    def lora(self) -> dict[str, Tensor]:
        return {key: tensor for key, tensor in self.tensors.items() if ".lora_" in key}

    @property
    def head(self) -> dict[str, Tensor]:
        return {key: tensor for key, tensor in self.tensors.items() if ".lora_" not in key}


def is_adapter(path: Path) -> bool:
    """Whether a file or folder looks like one adapter, readable or not."""
    if path.is_dir():
        files = (CONFIG, PEFT_FILE, DIFFUSERS_FILE, "adapter_model.bin", "pytorch_lora_weights.bin")
        return any((path / name).is_file() for name in files)
    return path.suffix == ".safetensors"


def read_adapter(path: Path) -> Adapter:
    """Read a PEFT folder, a folder with a diffusers file, or one file of diffusers' or kohya's keys.

    An adapter of another name than `default` lies in a folder of that name: where it is the only one it is found.

    Raises:
        UserError: there is no adapter; it is a pickle; it can't be read; it is more than W0 + (alpha / r) B A.
    """
    if path.is_dir():
        inside = [each for each in sorted(path.iterdir()) if each.is_dir() and is_adapter(each)]
        if (path / CONFIG).is_file():
            return _read_peft(path)
        if (path / DIFFUSERS_FILE).is_file():
            return _read_file(path / DIFFUSERS_FILE)
        for name in ("adapter_model.bin", "pytorch_lora_weights.bin"):
            _no_pickle(path / name)
        if len(inside) == 1:
            return read_adapter(inside[0])
        raise UserError(f"{path}: no adapter in it, allowed: {CONFIG} with {PEFT_FILE}, or {DIFFUSERS_FILE}")
    _no_pickle(path)
    return _read_file(path)


def _no_pickle(path: Path) -> None:
    if path.suffix in PICKLES and path.is_file():
        raise UserError(f"{path}: a pickle, which may run code when it is opened; allowed: safetensors")


# --- PEFT ---------------------------------------------------------------------------------------


def _read_peft(folder: Path) -> Adapter:
    config = read_json(folder / CONFIG)
    _check_config(config, str(folder / CONFIG))
    if not (folder / PEFT_FILE).is_file():
        _no_pickle(folder / "adapter_model.bin")
    tensors = {_plain(key): tensor for key, tensor in read_tensors(folder / PEFT_FILE).items()}
    return _adapter(tensors, config, {}, folder)


def _check_config(config: Any, where: str) -> None:
    """Raise unless PEFT's configuration is of a plain LoRA."""
    if not isinstance(config, dict):
        raise UserError(f"{where}: found a {type(config).__name__}, allowed: PEFT's configuration")
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        raise UserError(f"{where}: peft_type: found {kind!r}, allowed: LORA")
    if (start := config.get("init_lora_weights")) not in STARTS:
        raise UserError(f"{where}: init_lora_weights: found {start!r}, which changes the base model as well")
    for key, value in config.items():
        if key not in IGNORED and value and value != "none":
            raise UserError(f"{where}: {key}: found {value!r}, allowed: a LoRA without it; B A alone is merged")


def _plain(key: str) -> str:
    """A key without the adapter's name, which a file may hold or not."""
    key = re.sub(r"\.(lora_[AB])\.[^.]+\.(weight|bias)$", r".\1.\2", key)
    return re.sub(r"\.modules_to_save\.[^.]+\.", ".", key)


def _adapter(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], alphas: Mapping[str, float], at: Path
) -> Adapter:
    """Rank and alpha as the file says, else as its tensors do; alpha is the rank where nothing says it."""
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise UserError(f"{at}: {key}: found {tensor.dtype}, allowed: float32, float16, bfloat16")
    ranks = {tensor.shape[0] for key, tensor in tensors.items() if key.endswith(".lora_A.weight")}
    if not ranks:
        raise UserError(f"{at}: no LoRA matrix in it, found: {', '.join([*tensors][:2]) or 'nothing'}")
    rank = config.get("r", min(ranks))
    if ranks != {rank}:
        raise UserError(
            f"{at}: found matrices of ranks {', '.join(map(str, sorted({*ranks, rank})))}, allowed: one rank"
        )
    if len(found := set(alphas.values())) > 1 or (found and len(alphas) != sum(".lora_A." in key for key in tensors)):
        raise UserError(f"{at}: found alphas {sorted(found)} on {len(alphas)} modules, allowed: one for all")
    alpha = config.get("lora_alpha", min(found, default=rank))
    names = sorted({key.removeprefix(PREFIX).split(".lora_")[0] for key in tensors if ".lora_" in key})
    about = {
        "target_modules": config.get("target_modules") or names,
        "modules_to_save": config.get("modules_to_save") or [],
        "task_type": config.get("task_type"),
    }
    labels = at / LABELS if at.is_dir() else at.parent / LABELS
    named = read_json(labels)["id2label"] if labels.is_file() else {}
    in_order = [named[number] for number in sorted(named, key=int)] or None
    float32 = {key: tensor.float() for key, tensor in tensors.items()}
    return Adapter(float32, int(rank), float(alpha), config.get("base_model_name_or_path"), about, in_order)


# --- diffusers and kohya ------------------------------------------------------------------------


def _read_file(path: Path) -> Adapter:
    with open_tensors(path) as file:
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = json.loads((file.metadata() or {}).get(METADATA, "{}"))
    config = {key.removeprefix("transformer.").removeprefix("unet."): value for key, value in metadata.items()}
    _check_config(config, f"{path}: {METADATA}")
    tensors, alphas = _as_peft(found, path)
    return _adapter(tensors, config, alphas, path)


def _as_peft(tensors: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Keys of diffusers or kohya -> PEFT's keys, and the alphas of modules, where there are any.

    Raises:
        UserError: diffusers' helpers don't know such keys.
    """
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    # OneTrainer calls a transformer what it is, kohya's scripts call it a U-Net.
    found = {re.sub("^lora_transformer_", "lora_unet_", key): tensor for key, tensor in tensors.items()}
    if any(key.startswith(("lora_unet_", "lora_te")) for key in found):
        try:
            found, alphas = _convert_non_diffusers_lora_to_diffusers(dict(found))
        except (KeyError, ValueError) as error:
            first = re.sub(r"\s+", " ", str(error))[:200]
            raise UserError(f"{path}: keys that diffusers can't convert: {first}") from None
    else:
        alphas = {key: tensor.item() for key, tensor in found.items() if key.endswith(".alpha")}
        found = {key: tensor for key, tensor in found.items() if key not in alphas}
    if not any(".lora_A." in key for key in found):
        found = convert_unet_state_dict_to_peft(found)
    bare = {re.sub(r"^(transformer|unet|base_model\.model)\.", "", key): tensor for key, tensor in found.items()}
    return {PREFIX + _plain(key): tensor for key, tensor in bare.items()}, alphas


def write_diffusers(adapter: Adapter, folder: Path) -> None:
    """Write `pytorch_lora_weights.safetensors` as diffusers does: keys `transformer.<module>.lora_A.weight`."""
    from diffusers.loaders.lora_base import LoraBaseMixin
    from peft import LoraConfig

    targets = adapter.config["target_modules"]
    config = LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, target_modules=targets).to_dict()  # type: ignore[arg-type]
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    LoraBaseMixin._save_lora_weights(
        folder,
        lora_layers={"transformer": {key.removeprefix(PREFIX): tensor for key, tensor in adapter.lora.items()}},
        lora_metadata={"transformer": plain},
        weight_name=DIFFUSERS_FILE,
    )
    (folder / DIFFUSERS_FILE).chmod(0o644)


def write_kohya(adapter: Adapter, folder: Path) -> None:
    """Write the same under kohya's keys."""
    from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya

    found = convert_state_dict_to_kohya({key.replace(PREFIX, "unet.", 1): t for key, t in adapter.lora.items()})
    # diffusers takes the rank for alpha.
    alphas = {key: torch.tensor(adapter.alpha) for key in found if key.endswith(".alpha")}
    write_tensors(folder / DIFFUSERS_FILE, found | alphas)
