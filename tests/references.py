"""Make the references of the regression test again: `python tests/references.py [SESSION ...]`, or `make references`.

A reference is an executed quick run in tests/notebooks/; nbval executes it again and compares what it prints.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import yaml
from nbconvert.preprocessors.coalescestreams import CoalesceStreamsPreprocessor

from course import notebooks
from course.sessions import all_sessions, find_session

FOLDER = Path(__file__).resolve().parent / "notebooks"
IGNORE = "nbval-ignore-output"


def execute(session, path, **parameters):
    """Execute a session's notebook in the quick profile, as anyone would, without `course`, from its own folder."""
    values = yaml.safe_dump({**session.quick, **parameters})
    command = [sys.executable, "-m", "papermill", session.path.name, str(path), "--parameters_yaml", values]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = {"cwd": session.folder, "env": environment, "capture_output": True, "text": True}
    return subprocess.run([*command, "--no-progress-bar"], **options)


def clean(notebook):
    """Keep what is compared or read: text, not pictures; and tag the cells whose output depends on the processor."""
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    trained = False
    for cell in notebook.cells:
        tags = notebooks.tags(cell)
        cell.metadata = {"tags": sorted(tags)}
        if cell.cell_type != "code":
            continue
        if "injected-parameters" in tags:
            cell.id = "injected-parameters"
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            for kind in ("image/png", "text/html"):
                output.get("data", {}).pop(kind, None)
            if "metadata" in output:
                output.metadata = {}
        # Of the outputs of trained weights only the log keeps its form when its figures change.
        trains = "train.fit(" in cell.source or "find_lr(" in cell.source
        if trained and not trains:
            cell.metadata["tags"] = sorted(tags | {IGNORE})
        trained = trained or trains
    CoalesceStreamsPreprocessor(enabled=True).preprocess(notebook, {})  # how prints are split is chance


def main(names):
    for session in [find_session(name) for name in names] or all_sessions():
        with tempfile.TemporaryDirectory() as folder:
            executed = Path(folder) / "executed.ipynb"
            process = execute(session, executed)
            if process.returncode:
                sys.exit(process.stderr)
            notebook = nbformat.read(executed, 4)
        clean(notebook)
        nbformat.write(notebook, FOLDER / f"{session.name}.ipynb")
        print(f"tests/notebooks/{session.name}.ipynb", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
