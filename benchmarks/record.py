"""Dated results that name the machine: one JSON file a benchmark and day, and a readable table beside it."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[1]
RESULTS = HOME / "benchmarks" / "results"
DATA = HOME.parent / "shared" / "data"
PACKAGES = ("torch", "openvino", "open_clip_torch", "faiss-cpu", "faiss-gpu", "pyarrow", "duckdb", "numpy", "pillow")


@dataclass(frozen=True)
class Figure:
    """One measured figure beside the one asked for (an empty string where none was)."""

    name: str
    measured: Any
    asked: str = ""
    unit: str = ""


def hardware(gpu: str | None = None) -> dict[str, Any]:
    """Return the processor, cores, memory, accelerator (`gpu`, else torch's name of it) and package versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "gpu": gpu or gpu_name(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := installed(name))},
    }


def gpu_name() -> str | None:
    """Return the name of the first CUDA device, None where there is none."""
    if "torch" not in sys.modules:
        return None
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def installed(name: str) -> str | None:
    """Return the version of a package, None where it is not installed."""
    try:
        return version(name)
    except ModuleNotFoundError:
        return None


def record(
    name: str,
    figures: list[Figure],
    notes: str = "",
    *,
    folder: Path = RESULTS,
    show: bool = True,
    gpu: str | None = None,
) -> Path:
    """Write `DATE_NAME.json` and `.md` to a folder, print the table if `show`, and return the path of the table.

    `gpu` is the name of the accelerator where the measurements were made in other processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    machine, today = hardware(gpu), date.today().isoformat()
    stem = folder / f"{today}_{name}"
    rows = [asdict(figure) for figure in figures]
    value = {"benchmark": name, "date": today, "hardware": machine, "notes": notes, "figures": rows}
    stem.with_suffix(".json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    lines = [f"| {f.name} | {shown(f.measured)} {f.unit} | {f.asked} |" for f in figures]
    where = f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, GPU {machine['gpu'] or 'none'}"
    packages = ", ".join(f"{package} {found}" for package, found in machine["packages"].items())
    text = [f"# {name}, {today}", "", f"{where}; Python {machine['python']}; {packages}.", "", notes, ""]
    text += ["| figure | measured | asked for |", "|---|---|---|", *lines]
    table = "\n".join(line for i, line in enumerate(text) if line or text[i - 1]) + "\n"
    stem.with_suffix(".md").write_text(table, encoding="utf-8")
    if show:
        print(table)
    return stem.with_suffix(".md")


def shown(value: Any) -> str:
    """Return a figure with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def need_data() -> Path:
    """Return the folder of real data, or stop with the reason."""
    if not DATA.is_dir():
        sys.exit("error: the folder shared/data beside the project is absent; this benchmark needs what it holds")
    return DATA
