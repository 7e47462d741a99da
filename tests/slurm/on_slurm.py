"""`condpdiff launch` on a Slurm that root starts here, one node with two CPUs: `make test-slurm`; some minutes."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from condpdiff.common.training import SAVE_AFTER
from tests.clone import ROOT, commit, run, set_key, stages_run, throwaway_clone
from tests.experiments import toy
from tests.faults.kill import left

SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=cpu Nodes=ALL Default=YES
"""
LACKING = [name for name in ("munged", "slurmctld", "slurmd") if shutil.which(name) is None]
WHY = f"no {', '.join(LACKING)}: apt-get install slurm-wlm munge" if LACKING else "needs root"
pytestmark = pytest.mark.skipif(bool(LACKING) or os.geteuid() != 0, reason=WHY)

RESOURCES = "configs/cluster/launch.yaml"
FILES = {
    "mood": "odd",
    "dvc.yaml": """
stages:
  finetune-collect: {matrix: {i: [many]}, cmd: python -m stages.finetune_collect, deps: [mood], outs: [zoo]}
  slow: {cmd: 'echo . >> begun; until [ -e go ]; do sleep 0.1; done; cp zoo slow', deps: [zoo], outs: [slow]}
  bad: {cmd: 'grep -q good mood || { echo "error: mood is odd"; exit 1; }; cp mood bad', deps: [mood], outs: [bad]}
  after: {cmd: 'cat bad slow > after', deps: [bad, slow], outs: [after]}
""",
    "stages/__init__.py": "",
    "stages/finetune_collect.py": """
import os
from pathlib import Path
part = os.environ.get("CONDPDIFF_PART")
Path(f"part-{part[0]}-of-{part[2]}" if part else "zoo").write_text(" ".join(sorted(map(str, Path().glob("part-*")))))
""",
    "configs/families/many.yaml": "",
    RESOURCES: "stages: {finetune-collect: {array: 2}, after: {partition: none}}",
}


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder, host = tmp_path_factory.mktemp("slurm"), socket.gethostname().partition(".")[0]
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    text = SLURM_CONF.format(host=host, folder=folder, ports=[server.getsockname()[1] for server in servers])
    _ = [server.close() for server in servers]
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    (folder / "spool").mkdir()
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed", "log")]
    munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files]
    os.environ["SLURM_CONF"], daemons = str(folder / "slurm.conf"), list[subprocess.Popen[bytes]]()
    try:
        for command in (munged, ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            with (folder / f"{command[0]}.out").open("wb") as log:
                daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
            time.sleep(1)
        wait(lambda: run(folder, "sinfo", "--noheader", "--format=%t", check=False).stdout.strip() == "idle", 60)
        yield
    finally:
        run(folder, "scancel", "--me", check=False)
        for process in reversed(daemons):
            process.terminate()
            process.wait()
        del os.environ["SLURM_CONF"]


def wait(for_what: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not for_what():
        assert time.monotonic() < end, f"still not so after {seconds} s"
        time.sleep(0.5)


def launch(folder: Path, *words: str, status: int = 0, **changes: str) -> list[str]:
    done = run(folder, "condpdiff", "launch", *words, check=False, PYTHONPATH=str(ROOT), **changes)
    assert done.returncode == status and "Traceback" not in done.stdout, done.stdout
    return done.stdout.splitlines()


def numbers(lines: list[str]) -> dict[str, str]:
    """Job's name -> its number, of what `launch` says."""
    return dict(line.split(": job ") for line in lines if ": job " in line)


def until_empty(seconds: float) -> None:
    wait(lambda: run(ROOT, "squeue", "--noheader").stdout == "", seconds)


def test_requeued_failed_and_refused_jobs(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "dvc", "init", "--quiet")
    assert "error: after: sbatch: error: " in (refused := launch(tmp_path, status=1)[-1]) and "partition" in refused
    until_empty(60)  # none of the others stays
    (tmp_path / RESOURCES).write_text("stages: {finetune-collect: {array: 2}}", encoding="utf-8")
    jobs = numbers(launch(tmp_path))
    wait((tmp_path / "begun").is_file, 300)
    assert (tmp_path / "zoo").read_text() == "part-0-of-2 part-1-of-2"
    run(tmp_path, "scontrol", "requeue", jobs["slow"])
    assert launch(tmp_path, status=1)[0].startswith("error: Slurm still has ")
    wait(lambda: (tmp_path / "begun").read_text().count(".") > 1, 300)  # a busy node may requeue it once more
    assert f"slow: RUNNING; tmp/slurm/slow-{jobs['slow']}.log: " in "\n".join(launch(tmp_path, "--status"))
    (tmp_path / "go").touch()
    until_empty(300)
    assert launch(tmp_path, "--status") == [f"bad: failed; tmp/slurm/bad-{jobs['bad']}.log: error: mood is odd"]
    (tmp_path / "mood").write_text("good")
    launch(tmp_path)
    until_empty(300)
    assert "up to date" in run(tmp_path, "dvc", "status").stdout


def test_a_study_s_runs_side_by_side(tmp_path: Path) -> None:
    folder = toy.make(tmp_path / "toy")
    (folder / "mood").write_text("good -")
    commit(folder, "good mood")
    launch(folder, "--study", "toy")
    until_empty(300)
    assert set(toy.commits(folder)) == {"toy-default", "toy-loud", "toy-one_hot"}


def test_the_smoke_run(tmp_path: Path) -> None:
    clone = throwaway_clone(tmp_path)
    run(clone, "condpdiff", "preset", "smoke", PYTHONPATH=str(ROOT))
    set_key(clone, "params.yaml", "ldm.steps", 400)
    jobs = numbers(launch(clone, **{SAVE_AFTER: "0"}))
    wait(lambda: bool(left(clone, "train-ldm")), 1800)
    run(clone, "scontrol", "requeue", jobs["train-ldm"])
    until_empty(1800)
    assert "going on from step" in (clone / f"tmp/slurm/train-ldm-{jobs['train-ldm']}.log").read_text()
    assert launch(clone, "--status") == [] and launch(clone)[-1] == "everything is up to date"
    again = run(clone, "dvc", "repro").stdout
    assert stages_run(again) == set() and "up to date" in again
