"""check-params: params.yaml and its task files, checked whole before any stage works, and the tasks' sections apart."""

from pathlib import Path

from condpdiff.common.files import new_directory, write_text
from condpdiff.common.stage import run
from condpdiff.common.task import MEMBERS, SETTINGS, save_members, save_sections
from condpdiff.experiments.params import load_params

CHECKED = Path("data/params-checked")


def main() -> None:
    params, tasks = load_params()
    with new_directory(SETTINGS) as folder:
        for name in params.tasks:
            save_sections(folder / name, name)
    at_most = params.normalize.train_members
    found = [tasks[name].members for name in params.tasks]
    save_members(MEMBERS, params.tasks, [each and each.trained_on(at_most) for each in found])
    # Always the same bytes: a change of params.yaml reruns only the stages that read the changed key.
    write_text(CHECKED, "params.yaml and its task files are valid\n")
    for folder in sorted(Path("data").glob("*/*/")):
        if folder.parent.name in ("tasks", "zoo", "eval", "adapters") and folder.name not in params.tasks:
            print(f"warning: {folder} belongs to no task of params.yaml; it changes cache keys: rm -r {folder}")


if __name__ == "__main__":
    run(main)
