"""Shared code of the course. Importing it checks that torch and torchvision belong together."""

from importlib import metadata

from packaging.requirements import Requirement


def _check_pair():
    """Raise ImportError if the installed torchvision was built for another torch (found without importing either)."""
    torch, torchvision = metadata.version("torch"), metadata.version("torchvision")
    needs = [Requirement(line) for line in metadata.requires("torchvision")]
    fits = all(need.specifier.contains(torch, prereleases=True) for need in needs if need.name == "torch")
    if not fits or ("+cpu" in torch) != ("+cpu" in torchvision):
        raise ImportError(
            f"torch {torch} and torchvision {torchvision} do not match: install both in one command from the same "
            "place, `pip install --force-reinstall torch torchvision`."
        )


_check_pair()
