"""The machine: versions, the ceilings that everything else is held against, and the project's own GPU tests on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from record import HOME

from gpu.meters import seconds_of
from gpu.notes import Run

CPU_FACTS = ("Model name", "CPU(s)", "Thread(s) per core", "L3 cache")
PACKAGES = (
    "torch",
    "torchvision",
    "triton",
    "transformers",
    "timm",
    "open_clip_torch",
    "faiss-cpu",
    "duckdb",
    "numpy",
    "pyarrow",
    "pillow",
    "click",
    "rich",
    "jinja2",
    "fsspec",
    "safetensors",
    "tokenizers",
    "huggingface-hub",
    "ftfy",
    "pytest",
    "psutil",
    "nvidia-ml-py",
)


def machine(run: Run) -> None:
    """Versions, and the ceilings that everything else is held against."""
    import torch

    notes = run.notes
    notes.fact("nvidia-smi", said(["nvidia-smi"]))
    notes.fact("cpu", [line for line in said(["lscpu"]).splitlines() if line.split(":")[0] in CPU_FACTS])
    notes.fact("memory", said(["free", "-g"]))
    notes.fact("versions", versions())
    threads = {"os": os.cpu_count(), "usable": len(os.sched_getaffinity(0)), "torch": torch.get_num_threads()}
    notes.fact("threads", threads)
    if run.device != "cpu":
        one = torch.cuda.get_device_properties(run.device)
        facts = {"name": one.name, "memory": one.total_memory, "multiprocessors": one.multi_processor_count}
        notes.fact("device", facts)
        notes.figure("bf16 supported", torch.cuda.is_bf16_supported(including_emulation=False), asked="True")
    with notes.part("arithmetic"):
        for name in run.pick(("bfloat16", "float16", "float32"), ("bfloat16", "float32")):
            matrix_product(run, name)
    with notes.part("copies"):
        notes.need(5)
        copies(run)


def matrix_product(run: Run, name: str) -> float:
    """Write down and return the operations a second of a large matrix product in a type of torch's."""
    import torch

    size, device = run.pick(8192, 512), run.device
    left, right = (torch.randn(size, size, device=device, dtype=getattr(torch, name)) for _ in range(2))
    seconds = seconds_of(lambda: [left @ right for _ in range(5)], device, repeats=5, warm=2) / 5
    run.notes.figure(f"matrix product {size}^3, {name}", 2 * size**3 / seconds / 1e12, "TFLOP/s")
    return 2 * size**3 / seconds


def copies(run: Run) -> None:
    """Bytes a second on the device, and to the device."""
    import numpy as np
    import torch

    notes, device = run.notes, run.device
    source = torch.randint(0, 256, (run.pick(1 << 31, 1 << 24),), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = seconds_of(lambda: target.copy_(source), device, repeats=5)
    notes.figure("copy on the device, read and written", 2 * source.numel() / seconds / 1e12, "TB/s")
    count = run.pick(256, 32)
    batch = torch.randint(0, 256, (count, 3, 224, 224), dtype=torch.uint8)
    to = seconds_of(lambda: batch.to(device, copy=True), device, repeats=5)
    notes.figure(f"{count} photographs as bytes to the device, pageable", batch.numel() / to / 1e9, "GB/s")
    if device != "cpu":
        pinned = batch.pin_memory()
        to = seconds_of(lambda: pinned.to(device, non_blocking=True), device, repeats=5)
        notes.figure(f"{count} photographs as bytes to the device, pinned", batch.numel() / to / 1e9, "GB/s")
        pinning = seconds_of(lambda: batch.pin_memory(), device, repeats=5)
        notes.figure(f"pin_memory of {count} photographs", pinning * 1e3, "ms")
    stacked = [one.numpy() for one in batch]
    stacking = seconds_of(lambda: np.stack(stacked), "cpu", repeats=5)
    notes.figure(f"np.stack of {count} photographs", stacking * 1e3, "ms")


def own_tests(run: Run) -> None:
    """The tests of the project that need a GPU; in a rehearsal those of one file that run without."""
    tests = HOME / "tests"
    files = [path for path in sorted(tests.rglob("test_*.py")) if "pytest.mark.gpu" in path.read_text("utf-8")]
    # Collecting all folders would import what is not on the machine.
    which = run.pick(["-m", "gpu", *map(str, files)], [str(tests / "test_indexer" / "test_gpu.py")])
    shape = ["-p", "no:cacheprovider", "-rA", "--tb=long", "--continue-on-collection-errors"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *shape, *which],
        capture_output=True,
        text=True,
        timeout=max(5.0, run.notes.left - 3),
        check=False,
        cwd=HOME,
    )
    print(done.stdout[-20000:], done.stderr[-4000:], flush=True)
    run.notes.fact("pytest", done.stdout[-12000:])
    lines = [line for line in done.stdout.splitlines() if " passed" in line or " failed" in line or " error" in line]
    run.notes.figure("pytest", lines[-1] if lines else f"exit code {done.returncode}", asked="all passed")


def said(command: Sequence[str]) -> str:
    """Return what a program prints, or why it cannot be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except OSError as error:
        return str(error)


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
