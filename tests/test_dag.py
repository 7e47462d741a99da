"""Which stages run after which change, on a DAG of two made-up tasks and a random stand-in for the base model.

The DAG runs once. A changed key is looked up in DVC's own status and graph; what only a run can tell is run in copies
of that clone, its cache included, side by side. Nothing is downloaded: the package index is switched off, and the
cache folder of downloads is empty.
"""

import csv
import io
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from dvc.repo import Repo
from networkx import ancestors

from tests.clone import RESULTS, ROOT, commit, run, set_key, stages_run, throwaway_clone
from tests.faults import kill

TASKS = {"films": "classification", "ratings": "regression"}
BASE = "models/random-stand-in"
SMALL: dict[str, Any] = {
    "tasks": list(TASKS),
    "base": {"source": "local", "name": BASE},
    "data": {"held_out": 24},
    "collect": {"max_checkpoints": 4, "validate_every": 6},
    "performance": {"rows": 8},
    "normalize": {"n_checkpoints": 4},
    "ae": {"latent_channels": 2, "latent_length": 8, "patch": 64, "width": 8, "steps": 20, "batch_size": 8},
    "condition": {"model": f"local-dir:{BASE}"},
    "ldm": {"channels": [8, 8, 16], "steps": 20, "batch_size": 8},
    "sample": {"count": 2, "steps": 4, "doses": 1, "trajectories": 1, "trajectory_points": 2},
    "probe": {"samples": 1},
    "eval": {"candidates": 2, "extra_candidates": 1, "select_rows": 16, "pca_axes": 2},
}

# What runs from a stage on.
FROM_EVAL = {"merge-eval@films", "merge-eval@ratings", "report"}
FROM_SAMPLE = {"sample", "probe"} | FROM_EVAL
FROM_LDM = {"train-ldm"} | FROM_SAMPLE
FROM_AE = {"train-ae", "encode-latents"} | FROM_LDM
FROM_NORMALIZE = {"normalize"} | FROM_AE
FROM_CONDITIONS = {"encode-conditions"} | FROM_LDM
FROM_DATA = {"prepare-data@films", "prepare-data@ratings", "encode-conditions"}
CHECKS = {"check-params", "check-base"}
ALL = {f"{stage}@{task}" for stage in ("finetune-collect", "score-zoo") for task in TASKS}
ALL |= CHECKS | {"prepare-base"} | FROM_DATA | FROM_NORMALIZE | FROM_CONDITIONS

FILMS = "configs/tasks/films.yaml"
KILLED = ("finetune-collect@films", "train-ldm", "merge-eval@films")
# File, key, new value, and the stages that rerun besides check-params, which reads every key.
CHANGES: list[tuple[str, str, Any, set[str]]] = [
    (FILMS, "finetune.lr", 0.02, {"finetune-collect@films", "score-zoo@films"} | FROM_NORMALIZE),
    ("params.yaml", "collect.rank", 2, ALL - CHECKS - {"prepare-base"} - FROM_DATA),
    ("params.yaml", "normalize.n_checkpoints", 3, FROM_NORMALIZE),  # Table 3
    ("params.yaml", "normalize.method", "task_tensor", FROM_NORMALIZE),  # Table 4a
    ("params.yaml", "normalize.layers", [0, 0], FROM_NORMALIZE),  # Table 4c
    ("params.yaml", "ae.noise", 0.01, FROM_AE),
    ("params.yaml", "condition.kind", "one_hot", FROM_CONDITIONS),  # Table 4b
    ("params.yaml", "ldm.steps", 21, FROM_LDM),
    ("params.yaml", "sample.guidance", 2.0, FROM_SAMPLE),
    ("params.yaml", "sample.performance", 1.0, FROM_SAMPLE),
    ("params.yaml", "performance.rows", 6, {"score-zoo@films", "score-zoo@ratings"} | FROM_LDM),
    ("params.yaml", "probe.samples", 2, {"probe", "report"}),
    ("params.yaml", "eval.select_rows", 5, FROM_EVAL),
    ("params.yaml", "report.learned_margin", 1.0, {"report"}),
]


class Step(NamedTuple):
    """One command in a clone."""

    status: int
    output: str

    @property
    def ran(self) -> set[str]:
        return stages_run(self.output)


class Outcome(NamedTuple):
    """A copy of the clone after a scenario's commands."""

    clone: Path
    steps: list[Step]


Scenario = Callable[[Path], list[Step]]


def offline(clone: Path) -> dict[str, str]:
    """Variables of an environment of one core, without network."""
    empty = {"CONDPDIFF_CACHE": str(clone / "tmp/no-packages"), "PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1"}
    return {**empty, "OMP_NUM_THREADS": "1"}


def call(clone: Path, *command: str) -> Step:
    done = run(clone, *command, check=False, **offline(clone))
    return Step(done.returncode, done.stdout)


def repro(clone: Path) -> Step:
    return call(clone, "dvc", "repro")


def small_clone(folder: Path) -> Path:
    """A clone of the working tree with the small DAG's params, tasks, rows and base model."""
    from tests.stand_ins import make_rows, make_task, save_base

    params = yaml.safe_load((ROOT / "configs/default.yaml").read_text(encoding="utf-8"))
    for name, values in SMALL.items():
        params[name] = params[name] | values if isinstance(values, dict) else values
    throwaway_clone(folder)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    save_base("bert", folder / BASE)
    for seed, (name, kind) in enumerate(TASKS.items()):
        task = make_task(kind).model_dump(mode="json", exclude_none=True)
        task["data"]["source"] |= {split: f"rows/{name}-{split}.csv" for split in ("train", "validation")}
        (folder / f"configs/tasks/{name}.yaml").write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
        for split, count in (("train", 64), ("validation", 24)):
            rows = make_rows(count, 10 * seed + count, kind)
            if kind == "classification":
                rows["label"] = [task["data"]["labels"][int(label)] for label in rows["label"]]
            (folder / "rows").mkdir(exist_ok=True)
            rows.to_csv(folder / f"rows/{name}-{split}.csv", columns=["text", "label"], index=False)
    commit(folder, "small DAG")
    return folder


def would_run(clone: Path) -> set[str]:
    """The stages that a `dvc repro` would run, by DVC's own status and graph, once the two checks have run.

    What hangs on a changed stage counts as changed: a stage whose outs come out as they were needs a real run to tell.
    """
    assert call(clone, "python", "-m", "stages.check_params").status == 0
    with Repo(str(clone)) as repo:
        graph = repo.index.graph  # an edge leads from a stage to the one that it reads from
        names = {stage: stage.name for stage in graph}
        status = {address.rpartition(":")[2] for address in repo.status()} - CHECKS  # it may be `PATH:NAME`
        changed = [stage for stage in graph if names[stage] in status]
        return {names[stage] for one in changed for stage in {one, *ancestors(graph, one)}} - CHECKS


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(max_workers=min(2, len(os.sched_getaffinity(0))))
    yield pool
    pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def clones(pool: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """Two clones with a cache each, after `dvc repro` and `git status`."""

    def finished(folder: Path) -> Outcome:
        steps = [repro(folder), call(folder, "git", "status", "--porcelain", "--untracked-files=all")]
        commit(folder, "results")
        return Outcome(folder, steps)

    made = [small_clone(tmp_path_factory.mktemp(name)) for name in ("clone", "twin")]
    return list(pool.map(finished, made))


@pytest.fixture(scope="module")
def futures(
    pool: ThreadPoolExecutor,
    clones: list[Outcome],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> dict[Scenario, Future[Outcome]]:
    """All scenarios that the selected tests ask for, begun."""
    assert clones[0].steps[0].status == 0, clones[0].steps[0].output

    def play(commands: Scenario) -> Outcome:
        folder = tmp_path_factory.mktemp("scenario") / "clone"
        shutil.copytree(clones[0].clone, folder, symlinks=True)
        return Outcome(folder, commands(folder))

    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    return {p["outcome"]: pool.submit(play, p["outcome"]) for p in params if "outcome" in p}


@pytest.fixture
def outcome(request: pytest.FixtureRequest, futures: dict[Scenario, Future[Outcome]]) -> Outcome:
    return futures[request.param].result()


def scenario(commands: Scenario) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("outcome", [commands], indirect=True, ids=[commands.__name__])


def test_whole_dag_runs_every_stage_without_network(clones: list[Outcome]) -> None:
    for clone in clones:
        assert clone.steps[0].status == 0, clone.steps[0].output
        assert clone.steps[0].ran == ALL


def test_same_seed_gives_the_same_bytes_in_every_out(clones: list[Outcome]) -> None:
    """In another folder, with a cache of its own."""
    locks = [yaml.safe_load((c.clone / "dvc.lock").read_text(encoding="utf-8"))["stages"] for c in clones]
    first, twin = ({(s, out["path"]): out["md5"] for s in lock for out in lock[s]["outs"]} for lock in locks)
    assert {stage for stage, _ in first} == ALL
    assert {key for key in first if first[key] != twin[key]} == set()


def test_git_sees_only_the_lock_and_the_metrics(clones: list[Outcome]) -> None:
    assert {line[3:] for line in clones[0].steps[1].output.splitlines()} == set(RESULTS)


def test_stages_import_the_clone(clones: list[Outcome]) -> None:
    clone = clones[0].clone
    where = "import sys; sys.path[0] = ''; import condpdiff; print(condpdiff.__file__)"
    assert Path(call(clone, "python", "-c", where).output.strip()).parent.parent == clone


def after_nothing(clone: Path) -> list[Step]:
    return [repro(clone)]


@scenario(after_nothing)
def test_second_repro_runs_nothing(outcome: Outcome) -> None:
    assert outcome.steps[0].ran == set()
    assert "up to date" in outcome.steps[0].output


@pytest.fixture(scope="module")
def copy(clones: list[Outcome], tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert clones[0].steps[0].status == 0, clones[0].steps[0].output
    folder = tmp_path_factory.mktemp("idle") / "clone"
    shutil.copytree(clones[0].clone, folder, symlinks=True)
    return folder


@pytest.fixture
def idle(copy: Path) -> Iterator[Path]:
    """A copy of the finished clone in which files are changed, and nothing is run; then it is as before."""
    yield copy
    run(copy, "git", "checkout", "--quiet", "--", "params.yaml", "configs")
    run(copy, "git", "clean", "--quiet", "-d", "-f", "-x", "--", "configs", "inputs")


@pytest.mark.parametrize(("file", "key", "value", "stages"), CHANGES, ids=[key for _, key, *_ in CHANGES])
def test_changed_key_reruns_exactly_these_stages(file: str, key: str, value: Any, stages: set[str], idle: Path) -> None:
    set_key(idle, file, key, value)
    assert would_run(idle) == stages


def test_added_task_reruns_nothing_of_the_others_up_to_normalize(idle: Path) -> None:
    shutil.copy(idle / FILMS, idle / "configs/tasks/plays.yaml")
    set_key(idle, "params.yaml", "tasks", [*TASKS, "plays"])
    own = {f"{stage}@plays" for stage in ("prepare-data", "finetune-collect", "score-zoo", "merge-eval")}
    assert would_run(idle) == own | FROM_NORMALIZE | FROM_CONDITIONS


def test_a_zoo_of_one_s_own_reruns_its_task_and_so_does_a_changed_file_of_it(idle: Path) -> None:
    (idle / "inputs/films").mkdir()
    (idle / "inputs/films/theta.safetensors").touch()
    assert would_run(idle) == set()
    set_key(idle, FILMS, "zoo", "inputs/films")
    assert would_run(idle) == {"finetune-collect@films", "score-zoo@films"} | FROM_NORMALIZE


def test_a_changed_file_of_rows_reruns_its_task_alone(idle: Path) -> None:
    rows = idle / "inputs/films.csv"
    rows.write_text("text,label\n")
    set_key(idle, FILMS, "data.source.train", "inputs/films.csv")
    changed = would_run(idle)
    rows.write_text("text,label\nother,good\n")
    assert would_run(idle) == changed
    assert {stage for stage in changed if stage.startswith("prepare-data@")} == {"prepare-data@films"}


def after_description(clone: Path) -> list[Step]:
    set_key(clone, FILMS, "condition.description", "Tell great films from awful ones.")
    return [repro(clone)]


@scenario(after_description)
def test_description_reruns_its_task_s_rows_and_no_fine_tuning(outcome: Outcome) -> None:
    (step,) = outcome.steps
    assert step.status == 0, step.output
    assert step.ran == CHECKS | {"prepare-data@films"} | FROM_CONDITIONS


def experiment(clone: Path) -> list[Step]:
    ran = call(clone, "dvc", "exp", "run", "-S", "ae.noise=0.01", "-n", "noise")
    return [ran, call(clone, "dvc", "exp", "show", "--csv")]


@scenario(experiment)
def test_experiment_runs_from_train_ae_and_shows_the_arms(outcome: Outcome) -> None:
    ran, shown = outcome.steps
    assert ran.status == 0, ran.output
    assert ran.ran == {"check-params"} | FROM_AE
    table = list(csv.DictReader(io.StringIO(shown.output)))
    (row,) = [row for row in table if row["Experiment"] == "noise"]
    assert float(row["ae.noise"]) == 0.01
    for arm in ("condpdiff", "original", "soup", "gaussian"):
        assert -100 <= float(row[f"average.{arm}"]) <= 100


def after_report_code(clone: Path) -> list[Step]:
    path = clone / "condpdiff/report/page.py"
    path.write_text(path.read_text(encoding="utf-8") + "# A changed caption.\n", encoding="utf-8")
    return [repro(clone)]


@scenario(after_report_code)
def test_report_code_runs_report_alone(outcome: Outcome) -> None:
    (step,) = outcome.steps
    assert step.status == 0, step.output
    assert step.ran == {"report"}


def after_change_and_back(clone: Path) -> list[Step]:
    before = (clone / "params.yaml").read_bytes()
    set_key(clone, "params.yaml", "report.seed", 1)
    changed = repro(clone)
    (clone / "params.yaml").write_bytes(before)
    return [changed, repro(clone)]


@scenario(after_change_and_back)
def test_a_change_taken_back_runs_nothing(outcome: Outcome) -> None:
    changed, back = outcome.steps
    assert changed.ran == {"check-params", "report"}
    assert (back.status, back.ran) == (0, set()), back.output
    assert call(outcome.clone, "git", "status", "--porcelain").output == ""


def after_misspelt_key(clone: Path) -> list[Step]:
    set_key(clone, "params.yaml", "ae.nois", 0.01)
    return [repro(clone)]


@scenario(after_misspelt_key)
def test_misspelt_key_stops_at_check_params_with_one_line(outcome: Outcome) -> None:
    (step,) = outcome.steps
    assert step.status != 0
    assert step.ran == {"check-params"}
    lines = [line for line in step.output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0].startswith("error: params.yaml: unknown key 'ae.nois' (did you mean 'noise'?)")
    assert "Traceback" not in step.output


def after_kill(clone: Path) -> list[Step]:
    """Kill DVC and a stage at the first thing that it leaves, run it again, and compare with an undisturbed run."""
    set_key(clone, "params.yaml", "ldm.steps", 400)
    steps = [call(clone, "dvc", "repro", "train-ldm")]
    for stage in KILLED:
        whole = kill.outs(clone, stage)
        frequent = {**offline(clone), "CONDPDIFF_SAVE_AFTER": "0"}
        kill.end(clone, stage, lambda _, stage=stage: bool(kill.left(clone, stage)), signal.SIGKILL, **frequent)
        assert not any((clone / out).exists() for out in whole)
        steps.append(call(clone, *kill.command(stage)))
        assert kill.outs(clone, stage) == whole and not kill.left(clone, stage), steps[-1].output
    return steps


@scenario(after_kill)
def test_killed_stage_goes_on_to_the_same_bytes(outcome: Outcome) -> None:
    first, *again = outcome.steps
    assert first.status == 0, first.output
    for stage, step in zip(KILLED, again, strict=True):
        assert (step.status, step.ran) == (0, {stage}), step.output
        assert stage.startswith("merge-eval") or "going on from step" in step.output


def after_truncation(clone: Path) -> list[Step]:
    path = clone / "data/zoo/films/theta.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    return [call(clone, "python", "-m", "stages.normalize"), repro(clone)]


@scenario(after_truncation)
def test_truncated_artifact_is_named_and_then_restored(outcome: Outcome) -> None:
    normalize, repro = outcome.steps
    assert normalize.status == 1
    line = normalize.output.strip().splitlines()[-1]
    assert line.startswith("error: data/zoo/films: found other bytes than finetune-collect@films wrote")
    assert "Traceback" not in normalize.output
    assert (repro.status, repro.ran) == (0, set()), repro.output
