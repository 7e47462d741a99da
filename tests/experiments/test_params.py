"""The whole of params.yaml: what the sections demand of each other, and what each domain demands."""

from pathlib import Path
from typing import Any

import pytest

from condpdiff.common.settings import read_yaml
from condpdiff.experiments.params import Params, check_run, fingerprint, load_params
from condpdiff.experiments.presets import apply, load_preset
from tests.messages import message_of

PARAMS = Path("params.yaml")
STYLE = {
    "domain": "style",
    "tasks": ["gradings"],
    "base": {"source": "trained", "name": "pixart-small"},
    "condition": {"kind": "style_images", "encoder": "efficientnet_lite0", "model": "package:x"},
    "ldm": {"performance": "none"},
    "sample": {"performance": None},
    "probe": {"samples": 0},
}
pytestmark = pytest.mark.usefixtures("repository")


def run(**keys: Any) -> dict[str, Any]:
    """The default with other keys; of a section those alone that are given."""
    data = read_yaml(PARAMS)
    return data | {k: data.get(k, {}) | v if isinstance(v, dict) else v for k, v in keys.items()}


def test_default_names_every_key_of_the_schema() -> None:
    """An optional key that is not written there could not be reset by a preset, nor seen by `dvc params diff`."""
    params, _ = check_run(run(), "default")
    for name, fields in run().items():
        if isinstance(fields, dict):
            assert set(fields) == set(type(getattr(params, name)).model_fields), name
    assert set(run()) == set(Params.model_fields)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"normalize": {"n_checkpoints": 151}}, "normalize.n_checkpoints: found 151, allowed: at most collect.max_"),
        ({"data": {"held_out": 1}}, "data.held_out: found 1, allowed: at least performance.rows + eval.select_rows = "),
        ({"ae": {"latent_length": 30}}, "ae.latent_length: found 30, allowed: a multiple of 4"),
        ({"ldm": {"performance": "none"}}, "sample.performance: found (0.75, 1.0), allowed: null with ldm.performance"),
        ({"normalize": {"layers": [4, 0]}}, "normalize.layers: found [4, 0], allowed: [first, last] with"),
        ({"tasks": []}, "tasks: found [], allowed: at least 1"),
        ({"tasks": ["movies", "movies"]}, "tasks: found ['movies', 'movies'], allowed: each task once"),
        ({"tasks": ["movie"]}, "tasks: unknown task 'movie' (did you mean 'movies'?); allowed: "),
        ({"domain": "txt"}, "domain: found 'txt' (did you mean 'text'?), allowed: 'text'"),
        ({"normalise": {}}, "unknown key 'normalise' (did you mean 'normalize'?); allowed: "),
        ({"base": {"source": "hubb"}}, "base.source: found 'hubb' (did you mean 'hub'?), allowed: "),
        ({"sample": {"steps": 1001}}, "sample.steps: found 1001, allowed: less than or equal to 1000"),
        ({"ldm": None}, "ldm: found None, allowed: a mapping of keys"),
        (STYLE | {"eval": {"image_steps": 1}}, "eval.image_steps: found 1, allowed: at least 2"),
    ],
)
def test_wrong_run_is_refused_in_one_line(keys: dict[str, Any], line: str) -> None:
    assert message_of(check_run, run(**keys), "params.yaml").startswith(f"params.yaml: {line}")


@pytest.mark.parametrize(
    ("domain", "key", "found", "allowed"),
    [
        ("text", "condition.kind", "style_images", "task_info_few_shot, task_info, few_shot, one_hot, learnable"),
        ("text", "condition.encoder", "resnet18", "minilm, clip"),
        ("text", "base.source", "trained", "package, hub, local"),
        ("style", "condition.kind", "few_shot", "style_images, one_hot, learnable"),
        ("style", "condition.encoder", "minilm", "efficientnet_lite0, lite0_depths, resnet18"),
        ("style", "base.source", "package", "trained, hub, local"),
    ],
)
def test_what_belongs_to_the_other_domain_is_refused(domain: str, key: str, found: str, allowed: str) -> None:
    data, (name, leaf) = run(**(STYLE if domain == "style" else {})), key.split(".")
    assert check_run(data, "params.yaml")[0].domain == domain
    data[name] = data[name] | {leaf: found}
    expected = f"params.yaml: {key}: found {found!r}, allowed: {allowed} (domain: {domain})"
    assert message_of(check_run, data, "params.yaml") == expected


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"tasks": ["glosses", "cola"]}, "tasks: found ['glosses', 'cola'], allowed: families alone, or none (glosses"),
        ({"tasks": ["glosses-far"]}, "tasks: found ['glosses-far'], allowed: families with 4 members to train on"),
        ({"tasks": ["glosses", "alone"]}, "members.unseen: found 1 (alone, tuning 0), allowed: at least 1, and 2 with"),
        ({"normalize": {"method": "task"}}, "normalize.method: found 'task', allowed: shared or batch or"),
        ({"normalize": {"layers": [0, 1]}}, "normalize.layers: found (0, 1), allowed: all (for families)"),
        ({"ldm": {"performance": "rank"}}, "ldm.performance: found 'rank', allowed: none (for families)"),
        ({"probe": {"samples": 2}}, "probe.samples: found 2, allowed: 0 (for families)"),
        ({"ae": {"arch": "conv1d"}}, "ae.arch: found 'conv1d', allowed: pca (for families)"),
        ({"ldm": {"prediction": "epsilon"}}, "ldm.prediction: found 'epsilon', allowed: sample (for families)"),
        ({"tasks": ["movies", "cola"]}, "ldm.task_loss.steps: found 6, allowed: 0 where no task is a family"),
    ],
)
def test_run_of_families_is_set_up_for_them(keys: dict[str, Any], line: str) -> None:
    apply(load_preset("many"))
    PARAMS.write_text(PARAMS.read_text().replace("    steps: 0", "    steps: 6"))  # of the task loss
    check_run(run(), "params.yaml")
    far = Path("configs/families/glosses-far.yaml").read_text()
    Path("configs/families/alone.yaml").write_text(far.replace("unseen: 12, tuning: 6", "unseen: 1, tuning: 0"))
    assert message_of(check_run, run(**keys), "params.yaml").startswith(f"params.yaml: {line}")


def test_fingerprint_is_of_the_settings_however_they_are_written() -> None:
    before = fingerprint(*load_params())
    assert len(before) == 12 and before.isalpha()
    for old, new, same in (("0.001", "1e-3", True), ("1e-3", "2e-3", False), ("2e-3", "0.001", True)):
        PARAMS.write_text(PARAMS.read_text().replace(f"  noise: {old}", f"  noise: {new}"))
        assert (fingerprint(*load_params()) == before) == same
    task = Path("configs/tasks/movies.yaml")
    task.write_text(task.read_text().replace("steps: ", "steps: 1"))
    assert fingerprint(*load_params()) != before
