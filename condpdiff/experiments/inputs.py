"""Where a run's input is: in a cache, in a folder, or still to be downloaded. Looks, and downloads nothing."""

from pathlib import Path

from condpdiff.common.errors import UserError
from condpdiff.common.packages import PACKAGES, cache_folder
from condpdiff.diffusion.settings import UNDESCRIBED, Condition
from condpdiff.experiments.params import Params

DATA = Path("data/tasks")


def model_input(source: str, name: str) -> str:
    """Whether a model is here."""
    if source == "package":
        return package_input(name)
    if source == "hub":
        return hub_input("models", name)
    if source == "trained":
        path = Path("configs/models", f"{name}.yaml")
        return f"trained here, by {path}" if path.is_file() else f"no such file: {path}"
    files = ("config.json", "model_index.json", "transformer/config.json")
    return "there" if any((Path(name) / file).is_file() for file in files) else "no such directory with a config.json"


def encoder_input(condition: Condition) -> str:
    """Whether the condition encoder is here; one-hot and learnable conditions need none."""
    if condition.kind in UNDESCRIBED:
        return "not needed"
    if condition.encoder == "clip":
        if not condition.model.startswith("local-dir:"):
            return "open_clip downloads it if its cache has not got it"
        return "there" if Path(condition.model.removeprefix("local-dir:")).is_dir() else "no such directory"
    source, _, name = condition.model.partition(":")
    if source == "torchvision":
        return "torchvision downloads it if its cache has not got it"
    if source == "local-file":
        return "there" if Path(name).is_file() else "no such file"
    if source not in ("package", "hub", "local-dir"):
        raise UserError(
            f"params.yaml: condition.model: found {condition.model!r}, "
            "allowed: package:, hub:, local-dir:, local-file: or torchvision:"
        )
    return model_input(source.removesuffix("-dir"), name)


def package_input(name: str) -> str:
    """Whether a package's archive is in the user's cache."""
    if name not in PACKAGES:
        return f"unknown package; allowed: {', '.join(sorted(PACKAGES))}"
    return "cached" if is_cached(name) else "not cached: pip will download it"


def hub_input(kind: str, name: str) -> str:
    """Whether the Hugging Face hub's cache has anything of a model or data set."""
    return "in the hub's cache" if hub_folder(kind, name).is_dir() else "not cached: needs the hub"


def prepared_rows(folder: Path, params: Params) -> list[int] | None:
    """Rows of train and validation that prepare-data has written, if it has and they can be this run's."""
    from pyarrow import ArrowException, parquet

    try:
        rows = [parquet.read_metadata(folder / f"{split}.parquet").num_rows for split in ("train", "validation")]
    except (OSError, ArrowException):
        return None
    return rows if rows[0] <= params.data.max_train and rows[1] <= params.data.max_validation else None


def is_cached(package: str) -> bool:
    try:
        return package in PACKAGES and (cache_folder() / PACKAGES[package].archive).is_file()
    except UserError:  # an unwritable cache folder
        return False


def hub_folder(kind: str, name: str) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"{kind}--{name.replace('/', '--')}"
