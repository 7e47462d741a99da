"""A repository of three trivial stages with the project's params.yaml: real `dvc exp run`s of seconds."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.clone import ROOT, commit, environment, run

STAGE = """
import json, sys, time
from pathlib import Path
stage = sys.argv[1]
if stage == "report":
    from condpdiff.experiments.params import fingerprint, load_params
    params, tasks = load_params()
    noise, mood = params.ae.noise, Path("mood").read_text()
    if noise == 0.5 and mood == "fail":
        sys.exit("too loud")
    if noise == 0.5 and mood == "sleep":
        print("asleep", flush=True)
        time.sleep(60)
    arms = {"condpdiff": 80 - 10 * noise + params.ldm.seed, "original": 79.0, "soup": 81.0, "gaussian": 80.5}
    means = {"condpdiff": arms["condpdiff"] - 1}
    lines = [f"{task},{arm},{arms[arm]},{means.get(arm, '')},," for task in tasks for arm in arms]
    Path("report/plots").mkdir(parents=True, exist_ok=True)
    Path("report/plots/arms.csv").write_text("\\n".join(["task,arm,score,mean,low,high", *lines]) + "\\n")
    average = {**arms, "condpdiff_mean": means["condpdiff"]}
    metrics = {"average": average, "condition_effect": 0.5, "settings": fingerprint(params, tasks)}
    Path("report/metrics.json").write_text(json.dumps(metrics))
else:
    import yaml
    Path("data").mkdir(exist_ok=True)
    params = yaml.safe_load(Path("params.yaml").read_text())
    Path(f"data/{stage}").write_text(json.dumps(params["ae" if stage == "train-ae" else stage]))
"""
DVC_YAML = """
stages:
  normalize: {cmd: python stage.py normalize, params: [normalize], outs: [data/normalize]}
  train-ae: {cmd: python stage.py train-ae, params: [ae], deps: [data/normalize], outs: [data/train-ae]}
  report:
    cmd: python stage.py report
    params: [tasks, condition, ldm]
    deps: [data/train-ae]
    outs: [report/plots]
    metrics: [report/metrics.json: {cache: false}]
"""
STUDY = """# Toy: three rows
claim: "loud is worse."
paper: table4b_condition.csv
seed_keys: [ldm.seed]
sizes: {embedded: {preset: study-small}}
rows:
  default: {seeds: [0, 1], paper: {condition: task_info_few_shot}}
  loud: {keys: {ae.noise: 0.5}}
  one_hot: {keys: {condition.kind: one_hot}, paper: {condition: one_hot}}
"""


def make(folder: Path) -> Path:
    """The repository, its default run committed; its `mood` says how a loud row's report ends."""
    for path in (ROOT / "configs").rglob("*.*"):
        if path.is_file():
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (folder / "params.yaml").write_bytes((ROOT / "configs/default.yaml").read_bytes())
    for name, text in (("stage.py", STAGE), ("dvc.yaml", DVC_YAML), ("mood", "fail")):
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "configs/studies/toy.yaml").write_text(STUDY, encoding="utf-8")
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "config", "user.name", "test")
    run(folder, "git", "config", "user.email", "test@example.org")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "repro", "--quiet", PYTHONPATH=str(ROOT))
    commit(folder, "toy")
    return folder


def command(*words: str) -> list[str]:
    """`condpdiff ...`, in a process of its own."""
    return [sys.executable, "-c", "from condpdiff.cli import app; app()", *words]


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`condpdiff ...`; stdout holds both streams."""
    return run(folder, *command(*words), check=False, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")


def started(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """The same, without waiting for its end."""
    return subprocess.Popen(
        command(*words),
        cwd=folder,
        env=environment(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell's background job ignores Ctrl-C and hands that on; these tests send it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def commits(folder: Path) -> dict[str, str]:
    """Name of each experiment -> its commit."""
    listed = run(folder, "git", "for-each-ref", "--format=%(refname:lstrip=4) %(objectname)", "refs/exps").stdout
    return dict(line.split() for line in listed.splitlines() if " " in line.strip())
