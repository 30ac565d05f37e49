"""Are our packages really ours? Their import names are common words that other distributions also use."""

from __future__ import annotations

from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

from .errors import TwinlensError

PACKAGES = ("encoders", "evaluation", "indexer", "matcher", "searcher", "storage", "training")


def check_origins() -> None:
    """Raise `TwinlensError` unless every package of ours lies in the folder that holds this one.

    The message names the foreign file, the distribution that owns it, and the command that mends it.
    """
    home = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        spec = find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parents[1] != home:
            raise TwinlensError(_foreign(name, origin, home))


def _foreign(name: str, origin: Path | None, home: Path) -> str:
    if origin is None:
        return f"the package {name!r} is missing beside the others in {home}; install twinlens again"
    owners = [owner for owner in packages_distributions().get(name, []) if owner != "twinlens"]
    cure = f"run `pip uninstall {owners[0]}`" if owners else "remove it"
    return (
        f"the package {name!r} should come from {home} but comes from {origin}; "
        f"{cure}, or install twinlens in a clean virtual environment"
    )
