"""The smoke preset, with the real base model and real rows: what a user has after `dvc repro`."""

import html.parser
import json
import re
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from condpdiff import Generator
from condpdiff.common.files import read_tensors
from condpdiff.report.arms import ARMS
from condpdiff.report.evaluation import AVERAGE, OF_AVERAGE, OF_TASK
from condpdiff.report.studies_section import OF_FAMILIES
from condpdiff.text.task import load_task
from tests.clone import ROOT, run
from tests.smoke import smoke

SMOKE = yaml.safe_load((ROOT / "configs/smoke.yaml").read_text(encoding="utf-8"))
TASKS: list[str] = SMOKE["tasks"]
PAGE = (ROOT / "docs/artifacts.md").read_text(encoding="utf-8")
TYPES = {"F32": "float32", "I64": "int64"}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smoke(tmp_path_factory.mktemp("smoke"))


@pytest.fixture(autouse=True)
def _in_clone(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)


def test_tasks_are_of_different_kinds() -> None:
    assert len({load_task(task).data.kind for task in TASKS}) > 1


def test_metrics_have_every_task_and_headline_arm() -> None:
    metrics = json.loads(Path("report/metrics.json").read_text(encoding="utf-8"))
    others = {"tasks_not_learned", "condition_effect", "settings"}  # all tasks have one frame: no other statistics
    assert set(metrics) == {*TASKS, "average"} | others
    assert -200 <= metrics["condition_effect"] <= 200  # another condition can turn a correlation round
    assert re.fullmatch("[a-p]{12}", metrics["settings"])
    for name in (*TASKS, "average"):
        assert set(metrics[name]) == set(OF_AVERAGE if name == AVERAGE else OF_TASK)
        assert all(-100 <= value <= 100 for value in metrics[name].values())


@pytest.mark.parametrize("task", TASKS)
def test_every_arm_has_scores(task: str) -> None:
    scores = pd.read_csv(Path("data/eval", task, "scores.csv"))
    assert list(dict.fromkeys(scores["arm"])) == ["majority", "no_lora", *ARMS]
    assert scores[["select", "validation"]].notna().all(axis=None)
    assert (scores["arm"] == "condpdiff").sum() == SMOKE["sample"]["count"]


@pytest.mark.parametrize("task", TASKS)
def test_peft_loads_the_adapter_and_it_scores_as_reported(task: str) -> None:
    """PEFT's own forward pass gives the predictions that merge-eval got from the merged weights."""
    about = load_task(task)
    base = AutoModelForSequenceClassification.from_pretrained("data/base", num_labels=about.data.num_outputs)
    model = PeftModel.from_pretrained(base, f"data/adapters/{task}").eval()
    rows = pd.read_parquet(f"data/tasks/{task}/validation.parquet")[:16]
    tokenizer = AutoTokenizer.from_pretrained("data/base")
    inputs = tokenizer(rows["text"].tolist(), padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits  # [16, outputs]
    found = logits[:, 0] if about.data.kind == "regression" else logits.argmax(-1).float()

    scores = pd.read_csv(f"data/eval/{task}/scores.csv")
    winner = scores[scores["arm"] == "condpdiff"]["select"].idxmax()
    with safe_open(f"data/eval/{task}/predictions.safetensors", framework="pt") as file:
        torch.testing.assert_close(found, file.get_tensor("predictions")[winner, :16], atol=1e-3, rtol=0)


def test_report_is_one_file_that_loads_nothing() -> None:
    page = Path("report/index.html").read_text(encoding="utf-8")
    loaded: list[str] = []

    class Loads(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            values = dict(attrs)
            loaded.extend(v for k in ("src", "srcset", "data", "poster") if (v := values.get(k)))
            if tag in ("link", "use", "image"):
                loaded.extend(v for k in ("href", "xlink:href") if (v := values.get(k)))

    Loads().feed(page)
    loaded += re.findall(r"url\(([^)]*)\)", page)
    assert not [where for where in loaded if not where.strip("'\"").startswith(("data:", "#"))]
    assert "<svg" in page
    for task in TASKS:
        assert task in page


def test_git_sees_only_the_lock_params_and_metrics(clone: Path) -> None:
    status = run(clone, "git", "status", "--porcelain", "--untracked-files=all").stdout
    assert {line[3:] for line in status.splitlines()} == {"dvc.lock", "params.yaml", "report/metrics.json"}


def documented() -> Iterator[tuple[str, str, str, str]]:
    """File, tensor, shape and type of every row of docs/artifacts.md; a file without tensors once."""
    for heading, body in re.findall(r"^## `(.+?)`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL):
        names: list[str] = []
        for cells in re.findall(r"^\|(.*?)\|(.*?)\|(.*?)\|(.*?)\|.*\|$", body, re.MULTILINE):
            file, tensor, shape, kind = (cell.strip() for cell in cells)
            if file == "file" or set(file) == {"-"}:
                continue
            names = re.findall(r"`(.+?)`", file) or names
            for name in names:
                yield heading + name, tensor.strip("`"), shape, kind


def with_tasks(name: str) -> list[str]:
    if "<study>" in name:
        studies = {path.stem for path in Path("docs/studies").glob("*.csv")} - {*OF_FAMILIES}
        return [name.replace("<study>", study).replace("<size>", "embedded") for study in studies]
    name = name.replace("<one>", TASKS[0]).replace("<other>", TASKS[1])
    of_classes = "/mistakes-" in name or "labels.json" in name
    tasks = [t for t in TASKS if not of_classes or load_task(t).data.kind == "classification"]
    return [name.replace("<task>", task) for task in tasks] if "<task>" in name else [name]


def test_docs_name_every_file_and_no_other() -> None:
    named = {path for name, *_ in documented() for path in with_tasks(name)}
    there = {str(path) for top in ("data", "report") for path in Path(top).rglob("*") if path.is_file()}
    assert named == there - {"data/.gitignore", "report/.gitignore"}


def test_docs_name_every_tensor_with_shape_and_type() -> None:
    """A letter is one number wherever it stands; those of a task's own rows may differ from task to task."""
    own = {"V", "R", "E", "M"}
    sizes: dict[tuple[str, str], int] = {}
    for task in TASKS:
        files: dict[str, dict[str, tuple[str, str]]] = {}
        for name, tensor, shape, kind in documented():
            if name.endswith(".safetensors"):
                files.setdefault(name.replace("<task>", task), {})[tensor.replace("<task>", task)] = (shape, kind)
        for name, tensors in files.items():
            with safe_open(name, framework="pt") as file:
                found = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            if "*" in tensors:
                assert {TYPES[part.get_dtype()] for part in found.values()} == {tensors["*"][1]}, name
                continue
            assert set(tensors) == {key for key in found if key not in set(TASKS) - {task}}, name
            for key, (shape, kind) in tensors.items():
                letters = shape.strip("[]").split(", ")
                assert TYPES[found[key].get_dtype()] == kind, f"{name}: {key}"
                assert len(found[key].get_shape()) == len(letters), f"{name}: {key}"
                for letter, size in zip(letters, found[key].get_shape(), strict=True):
                    known = sizes.setdefault((letter, task if letter in own else ""), size)
                    assert size == known, f"{name}: {key}: {letter} is {known} elsewhere"
    settings: dict[str, Any] = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    assert sizes["N", ""] == settings["normalize"]["n_checkpoints"]
    assert sizes["S", ""] == settings["sample"]["count"]
    assert sizes["L", ""] == settings["ae"]["latent_length"]


def test_examples_of_the_docs_run(clone: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) > 10 and all(example.count("\n") <= 3 for example in examples)
    run(clone, "python", "-c", "\n".join(examples))


# --- the generator that is packed of the run ----------------------------------------------------


@pytest.fixture(scope="module")
def generator(clone: Path) -> Path:
    run(clone, "condpdiff", "pack", "generator")
    return clone / "generator"


def generate(*options: str, check: bool = True) -> CompletedProcess[str]:
    return run(Path.cwd(), "condpdiff", "generate", "generator", *options, check=check)


def classification() -> tuple[str, list[str]]:
    """A task of classes, and their names."""
    return next((task, labels) for task in TASKS if (labels := load_task(task).data.labels))


def test_a_packed_generator_makes_the_samples_of_the_run_and_holds_no_code(generator: Path, tmp_path: Path) -> None:
    suffixes = {path.suffix for path in generator.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors", ".md"}
    made_by = Generator.from_pretrained(generator)
    assert sorted(made_by.tasks) == sorted(TASKS)
    for number, task in enumerate(TASKS):  # the stage's seed of each task
        loras = made_by.generate(task, samples=SMOKE["sample"]["count"], seed=number)
        theta = read_tensors(Path(f"data/samples/{task}.safetensors"))["theta"]
        torch.testing.assert_close(torch.stack([lora.theta for lora in loras]), theta)
    made_by.save_pretrained(tmp_path / "copy")
    again = Generator.from_pretrained(tmp_path / "copy").generate(TASKS[0], seed=3)[0]
    assert torch.equal(again.theta, made_by.generate(TASKS[0], seed=3)[0].theta)


def test_generate_writes_adapters_that_peft_loads_with_labels_and_a_card(generator: Path, tmp_path: Path) -> None:
    task, labels = classification()
    said = generate("--task", task, "--samples", "3", "--out", str(tmp_path / "a"))
    assert said.stdout.splitlines() == [f"{tmp_path / 'a'}: 3 adapters"]
    base = AutoModelForSequenceClassification.from_pretrained("data/base", num_labels=len(labels))
    for number, lora in enumerate(Generator.from_pretrained(generator).generate(task, samples=3)):
        model = PeftModel.from_pretrained(base, tmp_path / f"a/{number}")
        tensors = read_tensors(tmp_path / f"a/{number}/adapter_model.safetensors")
        assert all(torch.equal(tensors[key], value) for key, value in lora.state_dict().items())
        model.unload()
        written = json.loads((tmp_path / f"a/{number}/labels.json").read_text())
        assert written == {str(i): label for i, label in enumerate(labels)}
        card = (tmp_path / f"a/{number}/README.md").read_text()
        assert f"task `{task}`" in card and f"Sample: {number} of 3" in card and "| soup |" in card


def test_generate_selects_on_labelled_rows_trains_on_and_says_by_how_much(generator: Path, tmp_path: Path) -> None:
    task, names = classification()
    rows = pd.read_parquet(f"data/tasks/{task}/validation.parquet")
    rows.assign(label=[names[int(label)] for label in rows["label"]])[["text", "label"]].to_csv(tmp_path / "rows.csv")
    options = ("--samples", "6", "--select-on", str(tmp_path / "rows.csv"), "--steps", "4")
    said = generate("--task", task, *options, "--out", str(tmp_path / "b"))
    assert re.search(r"sample \d of 6: accuracy \d+\.\d\d on 24 rows, [+-]\d+\.\d\d against the mean", said.stdout)
    assert re.search(r"4 steps: loss \d\.\d+ -> \d\.\d+ on 5 held-out rows", said.stdout)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["0"]
    assert "4 steps of fine-tuning on 19 labelled rows" in (tmp_path / "b/0/README.md").read_text()


def test_a_task_in_words_has_the_nearest_tasks_head_and_says_so(generator: Path, tmp_path: Path) -> None:
    words = ["--description", "Is the film good?", "--example", "I loved it => positive"]
    said = generate(*words, "--out", str(tmp_path / "c")).stdout
    made_by, examples = Generator.from_pretrained(generator), [("I loved it", "positive")]
    lora = made_by.generate(description="Is the film good?", examples=examples)[0]
    assert said.startswith(f"note: the head and the labels are those of `{lora.task}`, the nearest task")
    written = read_tensors(tmp_path / "c/0/adapter_model.safetensors")
    assert all(torch.equal(written[key], value) for key, value in lora.state_dict().items())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--task", "movie"], "task: unknown task 'movie' (did you mean 'movies'?)"),
        ([], "found nothing, allowed: one of task, description and pictures"),
        (["--style-image", "one.png"], "found pictures, allowed with this generator: task or description"),
        (["--task", "movies", "--steps", "3"], "--steps: found no rows to train on"),
        (["--task", "movies", "--select-on", "none.csv"], "none.csv: no such file"),
        (["--description", "a", "--example", "b"], "--example: found 'b', allowed: \"text => label\""),
        (["--task", "movies", "--out", "data"], "data: found .gitignore, which would be lost"),
    ],
)
def test_a_wrong_question_is_one_line_and_writes_nothing(generator: Path, options: list[str], says: str) -> None:
    said = generate(*options, check=False)
    assert said.returncode == 1 and said.stdout.startswith(f"error: {says}") and said.stdout.count("\n") == 1
    assert not Path("adapters").exists()


def test_quickstart_runs(generator: Path) -> None:
    said = run(Path.cwd(), "python", "examples/quickstart.py", PYTHONWARNINGS="ignore").stdout
    assert f"knows: {', '.join(Generator.from_pretrained(generator).tasks)}" in said and "tensor([[" in said
