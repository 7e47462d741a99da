"""README and docs say what is there: links, files, functions and commands; `make docs` checks the links inside docs."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}


def names_in(path: Path) -> set[str]:
    """Functions, classes, methods and constants of a module."""
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {getattr(node, "name", "") or getattr(node, "id", "") for node in tree}


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert len(PAGES["README.md"].split()) <= 900
    targets = re.findall(r"\]\((?!http)([^)#]+)", PAGES["README.md"])
    assert targets and not [target for target in targets if not (ROOT / target).exists()]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_paths_of_code_and_settings_exist(page: str) -> None:
    paths = re.findall(r"`((?:condpdiff|stages|configs|docs|benchmarks)/[\w./-]*)`", PAGES[page])
    assert not [path for path in paths if "mine" not in path and not (ROOT / path).exists()]
    modules = re.findall(r"python -m ((?:condpdiff|benchmarks|tests)[\w.]+)", PAGES[page])
    assert not [name for name in modules if not (ROOT / f"{name.replace('.', '/')}.py").is_file()]


def test_the_table_of_equations_names_functions_that_are_there() -> None:
    rows = re.findall(r"\| `(condpdiff/\S+\.py)` \| (`[^|]+`) \|", PAGES["method.md"])
    assert len(rows) > 20
    for path, cell in rows:
        assert set(re.findall(r"`(\w+)`", cell)) <= names_in(ROOT / path), path


def test_every_page_is_in_the_navigation() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert set(re.findall(r"[\w-]+\.md", str(nav))) == set(PAGES) - {"README.md"}


def test_keys_of_settings_are_those_of_params() -> None:
    sections = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    known = {f"{name}.{key}" for name, part in sections.items() if isinstance(part, dict) for key in part}
    pattern = rf"`((?:{'|'.join(sections)})\.[a-z]\w+)[:`=]"
    of_tasks = {"data.source", "data.kind", "data.columns", "data.size", "condition.images", "finetune.steps"}
    for page, text in PAGES.items():
        found = {
            key
            for key in re.findall(pattern, text)
            if not key.endswith((".csv", ".json", ".py", ".yaml", ".safetensors"))
        }
        assert found <= known | of_tasks | {"report.py"}, page
