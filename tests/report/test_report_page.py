"""The stage as a whole: what it writes, that it is the same each time, and what the page holds."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from conftest import Made
from fake_run import build

from condpdiff.common.errors import UserError
from condpdiff.report import show
from condpdiff.report.arms import WHAT
from condpdiff.report.page import revision
from stages import report
from tests.clone import commit
from tests.clone import run as git


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_the_report_is_the_same_bytes_each_time(text: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(text.root, run, ignore=shutil.ignore_patterns("report"))
    monkeypatch.chdir(run)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    with plt.rc_context({"font.size": 30}):  # a user's own Matplotlib settings must not show
        report.main()
    assert files(run / "report") == files(text.report)


def test_everything_is_written_and_nothing_else(text: Made) -> None:
    written = files(text.report)
    plots = {f"plots/{name}.csv" for name in ("arms", "doses", "finetune_loss", "finetune_validation")}
    others = {name for name in written if not name.startswith("figures/")}
    assert others == {"metrics.json", "results.md", "index.html", *plots}
    kinds = ("arms", "dose", "novelty", "tsne", "trajectories")
    drawn = {f"{kind}-{task}.svg" for kind in kinds for task in text.params.tasks}
    # Of the two tasks one is of classification, and has mistakes.
    drawn |= {"differences.svg", "mistakes-movies.svg", "study-table4b-embedded.svg"}
    assert {name.removeprefix("figures/") for name in set(written) - others} == drawn
    arms = pd.read_csv(text.report / "plots/arms.csv")
    assert list(arms.columns) == ["task", "arm", "score", "mean", "low", "high"]
    for column in ("score", "mean"):
        assert arms[column].between(arms["low"], arms["high"]).all()
    assert set(arms["arm"]) == set(WHAT) and set(arms["task"]) == set(text.params.tasks)


def test_the_page_closes_its_elements_and_asks_no_host_for_anything(text: Made) -> None:
    marks = re.sub(r"(?s)(<script.*?>).*?(?=</script>)|(<style.*?>).*?(?=</style>)", r"\1\2", text.page)
    opened = re.findall(r"<(?!meta|link|img)(\w+)(?:\s[^<>]*?)?(?<!/)>", marks)
    assert sorted(opened) == sorted(re.findall(r"</(\w+)>", marks))
    fetched = re.findall(r'[ :](?:src|href|srcset|data|action)="([^"]*)"', marks)
    assert fetched and all(x.startswith(("#", "data:")) for x in fetched)
    assert not re.search(r"https?://|@import|url\((?!#)|<script [^>]*src", text.page)
    ids = re.findall(r' id="([^"]*)"', marks)
    assert len(set(ids)) == len(ids)
    assert {x[1:] for x in fetched if x.startswith("#")} | set(re.findall(r"url\(#(.*?)\)", marks)) <= set(ids)


def test_the_page_has_every_section_and_figures_that_follow_its_theme_and_stand_alone_as_files(text: Made) -> None:
    assert "var(--condpdiff)" in text.page
    svg = (text.report / "figures/arms-movies.svg").read_text()
    assert "var(" not in svg and svg.startswith("<?xml") and "<dc:date>" not in svg and "<metadata>" not in svg
    assert "nan" not in re.findall(r' d="(.*?)"', text.page)
    words = re.sub(r"<[^>]*>", "", re.sub(r"(?s)<(style|script|svg).*?</\1>", "", text.page))
    assert not re.search(r"\bnan\b", words, re.IGNORECASE)
    found = ["results", "candidates", "novelty", "doses", "condition", "studies", "paper", "settings"]
    assert re.findall(r'<h2 id="(\w+)"', text.page) == found


def test_metrics_are_few_flat_and_rounded(text: Made) -> None:
    found = json.loads((text.report / "metrics.json").read_text())
    effects = {"condition_effect", "statistics_effect"}
    assert set(found) == {*text.params.tasks, "average", "tasks_not_learned", "settings", *effects}
    assert set(found["average"]) == {"condpdiff", "condpdiff_mean", "original", "original_mean", "soup", "gaussian"}
    for task in text.params.tasks:
        assert set(found[task]) == {"condpdiff", "condpdiff_mean", "soup"}
        assert all(value == round(value, 2) for value in found[task].values())
    assert found["tasks_not_learned"] == 0 and len(found["settings"]) == 12
    assert "Whether the condition is used **can't be told**" in (text.report / "results.md").read_text()


@pytest.mark.usefixtures("undrawn")
def test_the_smallest_run_has_no_average_nor_doses_nor_trajectories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One task; two checkpoints and one candidate have no spread."""
    root = build(tmp_path / "small", tasks=("movies",), n=2, count=1, few=0)
    for path in root.glob("data/performance/*"):
        path.unlink()  # not even looked at
    monkeypatch.chdir(root)
    report.main()
    page, results = Path("report/index.html").read_text(), Path("report/results.md").read_text()
    for absent in ("Asked-for against obtained", "denoising steps, among"):
        assert absent not in page
    assert not list(Path("report/figures").glob("dose-*")) and not list(Path("report/figures").glob("trajectories-*"))
    assert Path("report/plots/doses.csv").read_text() == "task,asked,candidate,loss,validation\n"
    assert results.startswith("On movies, condpdiff (") and "mean |" not in results
    keys = {"movies", "average", "tasks_not_learned", "settings"}
    assert set(json.loads(Path("report/metrics.json").read_text())) == keys


def test_what_went_wrong_is_warned_of_everywhere(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A task that learned nothing, candidates without a score, and samples without a loss."""
    path = run / "data/eval/movies/scores.csv"
    scores, doses = pd.read_csv(path), pd.read_csv(path.with_name("doses.csv"))
    scores.loc[scores["arm"].isin(["original", "majority"]), "validation"] = 69.2
    scores.loc[scores["arm"] == "gaussian", "validation"] = float("nan")
    scores.to_csv(path, index=False)
    doses.loc[[3, 9], "loss"] = float("nan")
    doses.to_csv(path.with_name("doses.csv"), index=False)
    report.main()
    said = capsys.readouterr().err
    assert "warning: Task `movies` was not learned: collapsed" in said
    assert "Task `movies`: 6 candidates have no score (what they give is no number); they count as 0." in said
    assert "Task `movies`: 2 samples of asked-for performance have no loss" in said
    for name in ("index.html", "results.md"):
        assert "was not learned: collapsed" in Path("report", name).read_text()
    assert json.loads(Path("report/metrics.json").read_text())["tasks_not_learned"] == 1


def test_the_terminal_and_the_readme_show_the_results(
    text: Made, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="run `dvc repro`"):
        show.main()
    Path("report").mkdir()
    Path("report/results.md").write_text((text.report / "results.md").read_text())
    show.main()
    shown = capsys.readouterr().out
    assert "condpdiff" in shown and "report/index.html" in shown and "**" not in shown
    assert len({len(line) for line in shown.splitlines() if line.startswith("|")}) == 1
    Path("README.md").write_text("# A\n<!-- results -->\nold\n<!-- /results -->\nend\n")
    monkeypatch.setattr("sys.argv", ["show", "--readme"])
    show.main()
    once = Path("README.md").read_text()
    show.main()
    assert Path("README.md").read_text() == once
    assert "\nold\n" not in once and "| condpdiff" in once and once.endswith("<!-- /results -->\nend\n")
    Path("README.md").write_text("# A\n")
    with pytest.raises(UserError, match="README.md: no lines"):
        show.main()


def test_the_stage_imports_nothing_slow() -> None:
    code = "import sys, stages.report; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "sklearn", "scipy.stats"} & set(loaded)


def test_revision_is_the_commit_and_whether_settings_or_code_differ_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert revision() == "unknown"
    Path("params.yaml").write_text("a: 1\n")
    for command in ("init --quiet", "config user.name test", "config user.email test@example.org"):
        git(tmp_path, "git", *command.split())
    commit(tmp_path, "one")
    head = git(tmp_path, "git", "rev-parse", "HEAD").stdout[:12]
    Path("dvc.lock").write_text("every run writes it\n")
    assert revision() == f"`{head}`"
    Path("params.yaml").write_text("")
    assert revision() == f"`{head}` with uncommitted changes"
