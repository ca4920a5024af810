"""The accuracies for `course compare`, from published results or executed notebooks."""

from pathlib import Path

from course.measures import groups
from course.notebooks import read_notebook, read_record, results, run_of, shared_parameters
from course.sessions import UsageError, find_session


def accuracies(name):
    """The test accuracies of SESSION:VARIANT (published results) or FOLDER:VARIANT (executed notebooks)."""
    where, variant = name.rsplit(":", 1) if ":" in name else (name, "")
    if Path(where).is_dir():
        paths = [path for path in sorted(Path(where).glob("*.ipynb")) if path.name != "executed.ipynb"]
        records = [read_record(read_notebook(path), path.name) for path in paths]
        if any(shared_parameters(record) != shared_parameters(records[0]) for record in records):
            raise UsageError(f"{where} has runs with different parameters: compare runs of one kind.")
        if len({(record["session"], record["source_sha256"], record["dataset"]["sha256"]) for record in records}) > 1:
            raise UsageError(f"{where} has runs of different code or data: compare runs of one kind.")
        if len(set(map(run_of, records))) < len(records):
            raise UsageError(f"{where} has a run twice: each would count as a seed of its own.")
    else:
        session = find_session(where)
        where, records = session.name, results(session.folder)
    found = {group.name: group.accuracy.values for group in groups(records)}
    if variant not in found:
        raise UsageError(f"{name!r}: {where} has results of {', '.join(found) or 'no variant'}.")
    return found[variant]
