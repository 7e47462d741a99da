"""The whole of params.yaml: what the sections demand of each other."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from condpdiff.autoencoder.settings import Autoencoder
from condpdiff.common.errors import UserError
from condpdiff.common.settings import parse, read_yaml, section
from condpdiff.experiments.params import Params, load_params

DEFAULT = Path("configs/default.yaml")


@pytest.fixture
def default() -> dict[str, Any]:
    return read_yaml(DEFAULT)


def test_default_names_every_key_of_the_schema(default: dict[str, Any]) -> None:
    """An optional key that is not written there could not be reset by a preset, nor seen by `dvc params diff`."""
    params = parse(Params, default, "default")
    for name, fields in default.items():
        if isinstance(fields, dict):
            assert set(fields) == set(type(getattr(params, name)).model_fields), name
    assert set(default) == set(Params.model_fields)


def test_small_rate_written_by_dvc_loads_as_float(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dvc exp run -S ae.lr=0.00001` writes 1e-05, which YAML 1.1 reads as a string."""
    from dvc.utils.hydra import apply_overrides

    shutil.copy(DEFAULT, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    apply_overrides("params.yaml", ["ae.lr=0.00001", "ae.noise=1e-05"])
    assert "lr: 1e-05" in Path("params.yaml").read_text()
    ae = section("ae", Autoencoder)
    assert (ae.lr, ae.noise) == (1e-5, 1e-5)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (
            {"normalize": {"n_checkpoints": 151}},
            "normalize.n_checkpoints: found 151, allowed: at most collect.max_checkpoints = 150",
        ),
        ({"ae": {"latent_length": 30}}, "ae.latent_length: found 30, allowed: a multiple of 4"),
        ({"normalize": {"layers": [4, 0]}}, "normalize.layers: "),
        ({"tasks": []}, "tasks: found [], allowed: at least 1"),
        ({"tasks": ["movies", "movies"]}, "tasks: found ['movies', 'movies']: a task is named twice"),
        ({"domain": "txt"}, "domain: found 'txt' (did you mean 'text'?), allowed: 'text'"),
        ({"normalise": {}}, "unknown key 'normalise' (did you mean 'normalize'?); allowed: "),
        ({"base": {"source": "hubb"}}, "base.source: found 'hubb' (did you mean 'hub'?), allowed: "),
        ({"sample": {"steps": 1001}}, "sample.steps: found 1001, allowed: less than or equal to 1000"),
    ],
)
def test_wrong_run_is_refused_in_one_line(default: dict[str, Any], keys: dict[str, Any], line: str) -> None:
    for key, value in keys.items():
        default[key] = default.get(key, {}) | value if isinstance(value, dict) else value
    with pytest.raises(UserError) as caught:
        parse(Params, default, "params.yaml")
    assert str(caught.value).startswith(f"params.yaml: {line}")
    assert "\n" not in str(caught.value)


STYLE = {
    "domain": "style",
    "base": {"source": "trained", "name": "pixart-small", "inception": None},
    "condition": {"kind": "style_images", "encoder": "efficientnet_lite0", "model": "package:x"},
}


def test_style_names_its_own_base_kinds_and_encoders(default: dict[str, Any]) -> None:
    assert parse(Params, default | STYLE, "params.yaml").domain == "style"


@pytest.mark.parametrize(
    ("domain", "section", "key", "found", "allowed"),
    [
        ("text", "condition", "kind", "style_images", "task_info_few_shot, task_info, few_shot, one_hot, learnable"),
        ("text", "condition", "encoder", "resnet18", "minilm, clip"),
        ("text", "base", "source", "trained", "package, hub, local"),
        ("style", "condition", "kind", "few_shot", "style_images, one_hot, learnable"),
        ("style", "condition", "encoder", "minilm", "efficientnet_lite0, resnet18"),
        ("style", "base", "source", "package", "trained, hub, local"),
    ],
)
def test_what_belongs_to_the_other_domain_is_refused_in_one_line(
    default: dict[str, Any], domain: str, section: str, key: str, found: str, allowed: str
) -> None:
    run = default | (STYLE if domain == "style" else {})
    run[section] = run[section] | {key: found}
    with pytest.raises(UserError) as caught:
        parse(Params, run, "params.yaml")
    wanted = f"params.yaml: {section}.{key}: found {found!r}, allowed: {allowed} (domain: {domain})"
    assert str(caught.value) == wanted


@pytest.mark.parametrize("key", ["images", "image_steps"])
def test_style_needs_two_images_and_two_denoising_steps(default: dict[str, Any], key: str) -> None:
    run = default | STYLE
    run["eval"] = run["eval"] | {key: 1}
    with pytest.raises(UserError, match=f"^params.yaml: eval.{key}: found 1, allowed: at least 2"):
        parse(Params, run, "params.yaml")


def test_missing_section_is_named(default: dict[str, Any]) -> None:
    del default["ldm"]
    with pytest.raises(UserError, match="^params.yaml: key 'ldm' is missing$"):
        parse(Params, default, "params.yaml")


def test_unknown_task_names_the_nearest(default: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(default | {"tasks": ["movie"]}))
    with pytest.raises(UserError, match=r"unknown task 'movie' \(did you mean 'movies'\?\); allowed: .*tweets"):
        load_params(path)
