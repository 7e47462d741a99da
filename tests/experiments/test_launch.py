"""`condpdiff launch` on a repository of four stages, two of them matrices; Slurm itself: `make test-slurm`."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from condpdiff.common.errors import UserError
from condpdiff.experiments.launch import RESOURCES, stage_jobs, submit
from tests.clone import ROOT, run, stages_run

DVC_YAML = """
stages:
  rows: {matrix: {i: [a, b]}, cmd: 'sh work.sh rows-${item.i} source', deps: [source], outs: ['rows-${item.i}']}
  finetune-collect:
    matrix: {i: [a, b]}
    cmd: sh work.sh zoo-${item.i} rows-${item.i}
    deps: ["rows-${item.i}", mood]
    outs: ["zoo-${item.i}"]
  model: {cmd: sh work.sh model zoo-a zoo-b, deps: [zoo-a, zoo-b], outs: [model]}
  count: {cmd: sh work.sh count source, deps: [source], outs: [count]}
"""
# rows-a ends once rows-b has begun, and the other way round: two that run side by side.
WORK = """
out=$1; shift
touch begun-$out
other=$(echo $out | sed 's/rows-a/rows-B/; s/rows-b/rows-a/; s/B/b/'); n=0
while [ ! "$NO_WAIT" ] && [ ! -e begun-$other ]; do n=$((n + 1)); [ $n -lt 600 ] || exit 1; sleep 0.1; done
if [ "$(cat mood)" = $out ]; then echo "error: mood: found $out, allowed: another"; exit 1; fi
cat $@ > $out
"""
KINDS = ("partition", "gpus", "time", "mem", "cpus-per-task")
ALL = ["rows@a", "rows@b", "finetune-collect@a", "finetune-collect@b", "model", "count"]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (("dvc.yaml", DVC_YAML), ("work.sh", WORK), ("source", "rows\n"), ("mood", "good")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "dvc", "init", "--quiet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def launch(*words: str, status: int = 0) -> list[str]:
    done = run(Path.cwd(), "condpdiff", "launch", *words, check=False, PYTHONPATH=str(ROOT))
    assert done.returncode == status and "Traceback" not in done.stdout, done.stdout
    return done.stdout.splitlines()


def resources(stages: dict[str, Any]) -> None:
    RESOURCES.parent.mkdir(parents=True, exist_ok=True)
    RESOURCES.write_text(yaml.safe_dump({"defaults": {"partition": "cpu", "time": "1:00:00"}, "stages": stages}))


def submitted(*names: str) -> dict[str, dict[str, str]]:
    """Name of each job of a dry run, or NAME[] of an array -> its options of sbatch."""
    jobs, lines = {}, list[str]()
    submit(stage_jobs(list(names)), True, lines.append)
    for line in lines:
        options = dict(word[2:].partition("=")[::2] for word in shlex.split(line)[1:])
        jobs[options["job-name"] + "[]" * ("array" in options)] = options
    return jobs


def test_two_at_a_time_do_what_dvc_repro_would_do_and_leave_it_nothing(toy: Path) -> None:
    lines = launch("--local", "2")
    assert sorted(line.split()[1] for line in lines) == sorted(f"{name}:" for name in ALL)
    assert lines[-1].startswith("6/6 ") and (toy / "model").read_text() == "rows\n" * 2
    again = run(toy, "dvc", "repro").stdout
    assert stages_run(again) == set() and "up to date" in again
    assert launch("--local", "2") == ["everything is up to date"]


def test_what_needs_a_failed_stage_is_not_begun_and_its_words_reach_the_user(toy: Path) -> None:
    (toy / "mood").write_text("zoo-a")
    log = "tmp/slurm/finetune-collect@a-here.log: error: mood: found zoo-a, allowed: another"
    assert launch("--local", "2", status=1)[-1] == f"error: finetune-collect@a: failed, 1 that need it not begun; {log}"
    assert (toy / "zoo-b").is_file() and (toy / "count").is_file() and not (toy / "model").exists()


def test_jobs_wait_for_what_they_read_and_ask_for_their_stage_s_resources(toy: Path) -> None:
    resources({"finetune-collect": {"gpus": 1, "memory": "8G"}, "count": {"cpus": 2, "time": None}})
    jobs = submitted()
    assert set(jobs) == set(ALL)
    assert jobs["model"]["dependency"] == "afterok:finetune-collect@a:finetune-collect@b"
    assert "dependency" not in jobs["count"] and jobs["count"]["wrap"].endswith("dvc --wait-for-lock repro -s count")
    asked = [[jobs[name].get(kind) for kind in KINDS] for name in ("finetune-collect@a", "count")]
    assert asked == [["cpu", "1", "1:00:00", "8G", None], ["cpu", None, None, None, "2"]]
    assert set(submitted("finetune-collect@a")) == {"rows@a", "finetune-collect@a"}
    assert set(submitted("finetune-collect")) == set(ALL) - {"model", "count"}
    run(toy, "dvc", "repro", "-s", "rows@a", "rows@b", NO_WAIT="1")
    assert "dependency" not in submitted()["finetune-collect@a"] and "rows@a" not in submitted()


def test_a_family_s_fine_tuning_is_shared_by_an_array_of_jobs(toy: Path) -> None:
    resources({"finetune-collect": {"array": 3}})
    (toy / "configs/families").mkdir()
    (toy / "configs/families/a.yaml").touch()  # a is a family, b is none
    jobs = submitted()
    parts, own = jobs["finetune-collect@a[]"], jobs["finetune-collect@a"]
    assert parts["array"] == "0-2" and parts["dependency"] == "afterok:rows@a"
    assert "CONDPDIFF_PART=$SLURM_ARRAY_TASK_ID/3 " in parts["wrap"] and own["dependency"].endswith("@a in parts")
    assert set(jobs) == {*ALL, "finetune-collect@a[]"}


def test_mistakes_are_one_line(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match="^count: no sbatch on PATH; `condpdiff launch --local N` runs the same"):
        submit(stage_jobs(["count"]), False, print)
    with pytest.raises(UserError, match=r"^unknown stage 'cuont' \(did you mean 'count'\?\); allowed: rows, [^@]*$"):
        stage_jobs(["cuont"])
    wrong: list[dict[str, Any]] = [{"modle": {}}, {"model": {"array": 2}}]
    for stages in wrong:
        resources(stages)
        with pytest.raises(UserError, match="^configs/cluster/launch.yaml: unknown key 'stages.mod"):
            submit([], True, print)
