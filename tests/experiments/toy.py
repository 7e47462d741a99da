"""A repository of two trivial stages with the project's params.yaml: real `dvc exp run`s of seconds."""

import shutil
from pathlib import Path

from tests.clone import ROOT, commit, run

STAGE = """
import json, sys, time
from pathlib import Path

import yaml

if sys.argv[1] == "train-ae":
    Path("data").mkdir(exist_ok=True)
    Path("data/train-ae").write_text(json.dumps(yaml.safe_load(Path("params.yaml").read_text())["ae"]))
    sys.exit()
from condpdiff.experiments.params import fingerprint, load_params
params, tasks = load_params()
noise, (mood, asleep) = params.ae.noise, Path("mood").read_text().split()
if noise == 0.5 and mood == "fail":
    sys.exit("too loud")
if noise == 0.5 and mood == "sleep":
    Path(asleep).touch()
    time.sleep(120)
arms = {"condpdiff": 80 - 10 * noise + params.ldm.seed, "original": 79.0, "soup": 81.0, "gaussian": 80.5}
means = {"condpdiff": arms["condpdiff"] - 1}
lines = [f"{task},{arm},{arms[arm]},{means.get(arm, '')},," for task in tasks for arm in arms]
Path("report/plots").mkdir(parents=True, exist_ok=True)
Path("report/plots/arms.csv").write_text("\\n".join(["task,arm,score,mean,low,high", *lines]) + "\\n")
average = {**arms, "condpdiff_mean": means["condpdiff"]}
metrics = {"average": average, "condition_effect": 0.5, "settings": fingerprint(params, tasks)}
Path("report/metrics.json").write_text(json.dumps(metrics))
"""
DVC_YAML = """
stages:
  train-ae: {cmd: python stage.py train-ae, params: [ae], outs: [data/train-ae]}
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
  default: {paper: {condition: task_info_few_shot}}
  loud: {keys: {ae.noise: 0.5}}
  one_hot: {keys: {condition.kind: one_hot}, paper: {condition: one_hot}}
"""


def make(folder: Path) -> Path:
    """The repository, its default run committed; its `mood` says how a loud row's report ends."""
    shutil.copytree(ROOT / "configs", folder / "configs")
    shutil.copy(ROOT / "configs/default.yaml", folder / "params.yaml")
    for name, text in (("stage.py", STAGE), ("dvc.yaml", DVC_YAML), ("mood", "fail -"), (".gitignore", "/tmp/\n")):
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "configs/studies/toy.yaml").write_text(STUDY, encoding="utf-8")
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "config", "user.name", "test")
    run(folder, "git", "config", "user.email", "test@example.org")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "repro", "--quiet", PYTHONPATH=str(ROOT))
    commit(folder, "toy")
    return folder


def commits(folder: Path) -> dict[str, str]:
    """Name of each experiment -> its commit."""
    listed = run(folder, "git", "for-each-ref", "--format=%(refname:lstrip=4) %(objectname)", "refs/exps").stdout
    return dict(line.split() for line in listed.splitlines() if " " in line.strip())
