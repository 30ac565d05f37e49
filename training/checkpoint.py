"""What a stopped run leaves behind, so that the same command goes on to the same result.

    my-encoder.fit/
      state.json                     replaced whole; names the files that count
      state-00000120.safetensors     weights in training and the optimiser's moments
      candidate-00000120.safetensors one of the best weights so far

A file counts once `state.json` names it; others are remains of a kill and are removed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from storage.files import atomic

from .errors import CheckpointError

STATE = "state.json"
Weights = dict[str, torch.Tensor]


@dataclass(kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        run: Digest of settings and examples; a run goes on only from a checkpoint with the same one.
        step: Steps done, over all epochs.
        candidates: (mean recall, step) of the weights that are kept, best first.
        curve: A row each evaluation.
        stale: Evaluations since the best one.
    """

    run: str
    step: int = 0
    candidates: list[tuple[float, int]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    stale: int = 0


class Checkpoints:
    """The folder of a run's checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, run: str) -> Progress | None:
        """Return where a run of this digest stopped; None where there is nothing to go on from.

        Raises:
            CheckpointError: The folder belongs to another run, or is damaged.
        """
        path = self.folder / STATE
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            progress = Progress(**{**found, "candidates": [tuple(pair) for pair in found["candidates"]]})
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{str(path)!r} is damaged; remove the folder to start anew") from error
        if progress.run != run:
            raise CheckpointError(
                f"{str(self.folder)!r} holds a stopped run with other examples or settings; "
                "give the same ones again to go on, or remove the folder to start anew"
            )
        return progress

    def tensors(self, name: str, step: int) -> Weights:
        """Return the tensors that were saved as `name` at a step.

        Raises:
            CheckpointError: The file is missing or damaged.
        """
        path = self._path(name, step)
        try:
            return dict(load_file(path))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"checkpoint {str(path)!r} cannot be read; remove its folder to start anew"
            ) from error

    def save(self, progress: Progress, state: Weights, candidate: Weights) -> None:
        """Keep a run's state, and its present weights where they are among the best."""
        with atomic.explained("save a checkpoint in", self.folder):
            atomic.make_folder(self.folder)
            if any(step == progress.step for _, step in progress.candidates):
                self._write("candidate", progress.step, candidate)
            self._write("state", progress.step, state)
            data = json.dumps(asdict(progress), indent=1).encode()
            atomic.replace_file(self.folder / STATE, data, "checkpoint")()
            self._clean(progress)

    def remove(self) -> None:
        """Remove the folder: the run is over."""
        atomic.remove_folder(self.folder)

    def _write(self, name: str, step: int, tensors: Weights) -> None:
        path = self._path(name, step)
        save_file({key: value.contiguous() for key, value in tensors.items()}, path)
        atomic.sync_file(path)

    def _clean(self, progress: Progress) -> None:
        counting = {self._path("state", progress.step), self.folder / STATE}
        counting |= {self._path("candidate", step) for _, step in progress.candidates}
        for path in self.folder.iterdir():
            if path not in counting:
                path.unlink()

    def _path(self, name: str, step: int) -> Path:
        return self.folder / f"{name}-{step:08d}.safetensors"
