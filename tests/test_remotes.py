"""A cache that is shared: a fresh clone with nothing but a remote restores a run, and executes nothing."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clone import ROOT, commit, run, stages_run

PIPELINE = """
stages:
  check:
    cmd: mkdir -p data && echo checked > data/checked
    deps: [params.yaml]
    outs: [data/checked]
  prepare:
    matrix: {task: "${tasks}"}
    cmd: mkdir -p data/tasks/${item.task} && echo ${item.task} > data/tasks/${item.task}/rows
    deps: [data/checked]
    outs: ["data/tasks/${item.task}"]
  report:
    cmd: cat data/tasks/*/rows > report.md && wc -c < report.md > metrics.json
    deps: [data/tasks]
    outs: [report.md]
    metrics: [metrics.json: {cache: false}]
"""
ALL = {"check", "prepare@films", "prepare@stars", "report"}


@pytest.fixture(params=["folder", "s3"])
def remote(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[list[str]]]:
    """DVC's commands that name a remote: a folder, or a bucket of a server on this machine."""
    if request.param == "folder":
        yield [["remote", "add", "--default", "shared", str(tmp_path / "shared")]]
        return
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", port=0)
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server.start()
    host, port = server.get_host_and_port()
    try:
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="lab")
        url = ["remote", "modify", "shared", "endpointurl", f"http://{host}:{port}"]
        yield [["remote", "add", "--default", "shared", "s3://lab/condpdiff"], url]
    finally:
        server.stop()


def test_a_fresh_clone_with_the_remote_alone_executes_nothing(remote: list[list[str]], tmp_path: Path) -> None:
    first, fresh = tmp_path / "first", tmp_path / "fresh"
    first.mkdir()
    (first / "dvc.yaml").write_text(PIPELINE)
    (first / "data").mkdir()
    # As the repository's. Without it DVC writes data/tasks/.gitignore, which Git tracks: a fresh clone has the folder
    # data/tasks with nothing of the run in it, and `report` has a changed dependency.
    shutil.copy(ROOT / "data/.gitignore", first / "data/.gitignore")
    (first / "params.yaml").write_text("tasks: [films, stars]\n")
    run(first, "git", "init", "--quiet")
    run(first, "git", "config", "user.name", "test")
    run(first, "git", "config", "user.email", "test@example.org")
    run(first, "dvc", "init", "--quiet")
    for command in remote:
        run(first, "dvc", *command)
    assert stages_run(run(first, "dvc", "repro").stdout) == ALL
    commit(first, "a run")
    lock = (first / "dvc.lock").read_bytes()
    run(tmp_path, "git", "clone", "--quiet", str(first), str(fresh))
    assert "files pushed" in run(first, "dvc", "push").stdout
    said = run(fresh, "dvc", "repro", "--pull", "--allow-missing").stdout
    assert stages_run(said) == set() and "Running stage" not in said
    assert (fresh / "dvc.lock").read_bytes() == lock
    run(fresh, "dvc", "pull")
    assert (fresh / "report.md").read_text() == "films\nstars\n"
    assert not run(fresh, "git", "status", "--porcelain").stdout
