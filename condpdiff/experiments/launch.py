"""What `dvc repro` would run, or a study's missing runs, as Slurm jobs or side by side on this machine.

Slurm (`--dependency=afterok`) orders the jobs, DVC's lock the writes: a job is `dvc --wait-for-lock repro -s INSTANCE`,
or one experiment in a folder of its own. Not by DVC's queue, whose one worker dies with its own job.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, create_model

from condpdiff.common.errors import UserError, nearest
from condpdiff.common.settings import Section, parse, read_yaml
from condpdiff.common.stage import PART
from condpdiff.common.task import FAMILIES
from condpdiff.experiments.finished import repository
from condpdiff.experiments.presets import Preset, as_dvc_options, changes, override
from condpdiff.experiments.study_plan import Study
from condpdiff.experiments.study_results import read

Say = Callable[[str], None]  # prints one line
LOGS, RESOURCES = Path("tmp/slurm"), Path("configs/cluster/launch.yaml")
ENDING = re.compile(r"-(\d+|\d+_\d+|here)\.log$")  # of a job's log: its number
DVC = [sys.executable, "-m", "dvc", "--wait-for-lock"]


class Resources(Section):
    """What a job asks `sbatch` for; None: the cluster's default."""

    partition: str | None = None
    gpus: int | str | None = None
    time: str | None = None
    memory: str | None = Field(default=None, serialization_alias="mem")
    cpus: int | None = Field(default=None, ge=1, serialization_alias="cpus-per-task")


class Shared(Resources):
    array: int | None = Field(default=None, ge=2)  # so many jobs fine-tune a family's members


class Job(NamedTuple):
    """An instance STAGE@ITEM of a stage, or a study's run; `after` names those that must have ended well before."""

    name: str
    command: list[str]
    after: list[str]


def stage_jobs(names: list[str]) -> list[Job]:
    """What is out of date, and what hangs on it, in the order of DVC's graph; of `names`: these and what they need."""
    from networkx import ancestors, descendants, topological_sort

    with repository("launch", _wait_for_lock=True) as repo:
        graph = repo.index.graph  # an edge leads from an instance to the one that it reads from
        order = {one.addressing: one for one in reversed(list(topological_sort(graph)))}
        changed = [order[name] for name in repo.status()]
    stages = dict.fromkeys(name.partition("@")[0] for name in order)
    for name in names:
        if name not in (known := {**stages, **order}):
            raise UserError(f"unknown stage {name!r}{nearest(name, known)}; allowed: {', '.join(stages)}")
    asked = [one for name, one in order.items() if not names or {name, name.partition("@")[0]} & set(names)]
    wanted = {needed for one in asked for needed in (one, *descendants(graph, one))}
    stale = wanted & {after for one in changed for after in (one, *ancestors(graph, one))}
    above = {name: sorted(up.addressing for up in graph.successors(order[name]) if up in stale) for name in order}
    return [Job(name, [*DVC, "repro", "-s", name], above[name]) for name in order if order[name] in stale]


def study_jobs(study: Study, say: Say) -> list[Job]:
    """The runs of a study that no experiment has the settings of; of the others, `say` tells where they are.
    Raises UserError: a name is taken by other settings."""
    results = read(study)
    if taken := results.taken:
        says = "an experiment of that name was run with other settings"
        raise UserError(f"{taken[0]}: {says}; `dvc exp remove {taken[0]}` removes it")
    for name, found in results.found.items():
        say(f"{name}: there" + ("" if found.name == name else f", as {found.name}"))
    return [Job(run.name, [*DVC, *words(run)[1:]], []) for run in study.runs if run.name not in results.found]


def words(run: Preset) -> list[str]:
    """The command `dvc exp run ...` of a run with its settings."""
    of_tasks = [f"{key.replace(':', ':++', 1)}={override(value)}" for key, value in run.task_keys.items()]
    command = as_dvc_options(changes(run), "--temp", "-n", run.name)
    return [*command, *(word for option in of_tasks for word in ("-S", option))]


def resources() -> dict[str, Resources]:
    """What the jobs of each stage, and of a study, ask for. UserError: a mistake in configs/cluster/launch.yaml."""
    names, many, other = read_yaml(Path("dvc.yaml"))["stages"], (Shared, Shared()), (Resources, Resources())
    kinds: Any = {name: many if name == "finetune-collect" else other for name in [*names, "study"]}
    stages = create_model("Stages", __base__=Section, **kinds)
    whole = create_model("Whole", __base__=Section, defaults=other, stages=(stages, stages()))
    file: Any = parse(whole, read_yaml(RESOURCES), str(RESOURCES)) if RESOURCES.is_file() else whole()
    given = {name: getattr(file.stages, name).model_dump(exclude_unset=True) for name in kinds}
    return {name: kind(**file.defaults.model_dump() | given[name]) for name, (kind, _) in kinds.items()}


def start(jobs: list[Job], local: int | None, dry_run: bool, say: Say) -> None:
    """Run the jobs here, `local` at a time, or give them to Slurm; a dry run says the commands."""
    if not jobs:
        say("everything is up to date")
    elif local and dry_run:
        say("\n".join(shlex.join(job.command) for job in jobs))
    elif local:
        run_here(jobs, local, say)
    else:
        submit(jobs, dry_run, say)


def submit(jobs: list[Job], dry_run: bool, say: Say) -> None:
    """Give Slurm the jobs, or `say` how. UserError: it isn't here, or refuses one and then gets none."""
    asked, ids = resources(), dict[str, str]()
    if not dry_run:
        shutil.rmtree(LOGS, ignore_errors=True)  # of earlier jobs
        LOGS.mkdir(parents=True)
    for job in jobs:
        (stage, _, item), after, log = job.name.partition("@"), job.after, f"--output={LOGS}/{job.name}"
        wants = asked.get(stage, asked["study"]).model_dump(by_alias=True, exclude_none=True)
        steps = [(job.name, shlex.join(job.command), [f"{log}-%j.log"])]
        if (n := wants.pop("array", None)) and (FAMILIES / f"{item}.yaml").is_file():
            stale = shlex.join([*DVC, "status", "--quiet", job.name])  # else DVC skips it, and so do the parts
            part = f"{PART}=$SLURM_ARRAY_TASK_ID/{n} {sys.executable} -m stages.finetune_collect {item}"
            steps.insert(0, (f"{job.name} in parts", f"{stale} || {part}", [f"{log}-%A_%a.log", f"--array=0-{n - 1}"]))
        for name, script, options in steps:
            command = ["sbatch", "--parsable", f"--job-name={job.name}", f"--comment={Path.cwd()}", "--export=ALL"]
            command += ["--requeue", "--open-mode=append", *options, *(f"--{o}={wants[o]}" for o in wants)]
            if after:
                command += [f"--dependency=afterok:{':'.join(ids[up] for up in after)}", "--kill-on-invalid-dep=yes"]
            command, after = [*command, f"--wrap={script}"], [name]
            try:
                ids[name] = name if dry_run else _slurm(*command).partition(";")[0]
            except UserError as error:
                if ids:
                    _slurm("scancel", *ids.values())
                raise UserError(f"{name}: {error}") from None
            say(shlex.join(command) if dry_run else f"{name}: job {ids[name]}")


def run_here(jobs: list[Job], n: int, say: Say) -> None:
    """Run the jobs on this machine, `n` at a time, without what hangs on one that fails. UserError: some failed."""
    left, sorter = {job.name: job.command for job in jobs}, TopologicalSorter({job.name: job.after for job in jobs})
    running, ready, failed = dict[str, subprocess.Popen[bytes]](), list[str](), list[str]()
    LOGS.mkdir(parents=True, exist_ok=True)
    sorter.prepare()
    while (ready := [*ready, *sorter.get_ready()]) or running:
        # One begins after the other: DVC may swap experiments that start in the same instant.
        if ready and len(running) < n and all(b"tage '" in (LOGS / f"{one}-here.log").read_bytes() for one in running):
            name = ready.pop(0)
            with (LOGS / f"{name}-here.log").open("wb") as log:
                running[name] = subprocess.Popen(left.pop(name), stdout=log, stderr=log, env=environment())
        time.sleep(0.1)
        for name in [name for name, process in running.items() if process.poll() is not None]:
            failed.append(name) if running.pop(name).returncode else sorter.done(name)
            how = f"failed; {_log(name)[0]}" if name in failed else "done"
            say(f"{len(jobs) - len(left) - len(running)}/{len(jobs)} {name}: {how}")
    if failed:
        raise UserError(f"{', '.join(failed)}: failed, {len(left)} that need it not begun; {_log(failed[0])[0]}")


def queue(strict: bool = False) -> dict[str, str]:
    """Name -> state of this folder's jobs with Slurm. A `dvc status` would take locks of other machines for stale."""
    command = ["squeue", "--me", "--noheader", "--format=%T|%j|%k"]
    found = _slurm(*command, strict=strict) if shutil.which("squeue") else ""
    lines = [line.split("|", 2) for line in found.splitlines()]
    return {name: state for state, name, comment in sorted(lines) if comment == str(Path.cwd())}


def tell(say: Say) -> None:
    """The jobs that Slurm has and those that failed, each with the last words of its log."""
    there, ended = queue(), {ENDING.sub("", path.name) for path in LOGS.glob("*.log")}
    for name in [*there, *sorted(ended - set(there))]:
        words, failed = _log(name)
        if name in there or failed:
            say(f"{name}: {there.get(name, 'failed')}; {words}")


def _log(name: str) -> tuple[str, bool]:
    """Path and last words of a job's newest log, an `error:` of the stage before DVC's; whether it ends in an error."""
    logs = [path for path in LOGS.glob("*.log") if ENDING.sub("", path.name) == name]
    if not logs:
        return "no log", False
    newest = max(logs, key=lambda path: path.stat().st_mtime)
    lines = [line.strip() for line in newest.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("> ", "Running stage", "ERROR: failed to reproduce"))]
    told = [line for line in told if line.startswith("error: ")] or told or lines or ["nothing"]
    return f"{newest}: {told[-1]}", bool(re.match(r"(?i)[\w.: ]*error\b", ["", *lines][-1]))


def environment() -> dict[str, str]:
    """This process's, with this interpreter first on the path: stages are `python -m ...`."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def _slurm(*command: str, strict: bool = True) -> str:
    if shutil.which(command[0]) is None:
        raise UserError(f"no {command[0]} on PATH; `condpdiff launch --local N` runs the same on this machine")
    done = subprocess.run(command, env=environment(), text=True, capture_output=True)
    if strict and done.returncode:
        raise UserError(" ".join(done.stderr.split()))
    return done.stdout.strip()
