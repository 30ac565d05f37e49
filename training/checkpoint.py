"""What a run writes: checkpoints, from which the same command resumes to the same result, and the finished folder.

    my-encoder.fit/                  until the run is over
      state.json                     replaced whole; names the files that count
      state-00000120.safetensors     weights in training and the optimiser's moments
      candidate-00000120.safetensors one of the best weights so far

Checkpoints are written by a thread while the training goes on. A file counts once `state.json` names it;
others were left by a kill or a full disk and are removed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from encoders.two_towers import save_weights
from storage.files import atomic

from .errors import CheckpointError, TrainingError

STATE = "state.json"
_PROBE_BYTES = 4 * 2**20
_WRITE_AT_LEAST = 0.2  # seconds: tokenizer, configuration and report beside the weights
Weights = dict[str, torch.Tensor]


@dataclass(kw_only=True)
class RunState:
    """How far a run has come; `state.json` holds the same.

    Attributes:
        run: Digest of settings and examples; a run resumes only from a checkpoint with the same one.
        step: Steps done, over all epochs.
        candidates: (score, step) of the weights that are kept, best first.
        curve: One row for each evaluation.
        stale: Evaluations since the best one.
        read: Share of the images that were read, as measured when the run began; see `readable_share`.
        share: Share of those that the run uses, likewise; see `affordable`.
        views: Augmented views of each image that it uses; None for those of the settings.
    """

    run: str
    step: int = 0
    candidates: list[tuple[float, int]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    stale: int = 0
    read: float = 1.0
    share: float = 1.0
    views: int | None = None

    def rank(self, score: float, keep: int) -> bool:
        """Add the weights of this step to the candidates, of which the `keep` best stay; return whether they lead."""
        best = not self.candidates or score > self.candidates[0][0]
        self.stale = 0 if best else self.stale + 1
        ranked = sorted([*self.candidates, (score, self.step)], key=lambda one: (-one[0], one[1]))
        self.candidates = ranked[:keep]
        return best


class Checkpoints:
    """The folder of a run's checkpoints, which a thread writes while the training goes on, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writing: futures.Future[None] | None = None
        self._began = self._longest = 0.0

    @property
    def seconds(self) -> float:
        """Seconds that the slowest checkpoint took to be written; the one under way counts as far as it is."""
        under_way = 0.0 if self._writing is None else time.monotonic() - self._began
        return max(self._longest, under_way)

    def load(self, run: str) -> RunState:
        """Return where a run of this digest stopped, or the beginning where there is no checkpoint.

        Raises:
            CheckpointError: The folder belongs to another run, or is damaged.
        """
        path = self.folder / STATE
        if not path.is_file():
            return RunState(run=run)
        state = self._state(path)
        if state.run != run:
            raise CheckpointError(
                f"{str(self.folder)!r} holds a stopped run with other examples or settings; "
                "give the same ones again to go on, or remove the folder to start anew"
            )
        return state

    def read_share(self) -> float | None:
        """Return which share of the images a stopped run has read; None where there is no checkpoint."""
        path = self.folder / STATE
        return self._state(path).read if path.is_file() else None

    def tensors(self, name: str, step: int) -> Weights:
        """Return the tensors that were saved as `name` at a step.

        Raises:
            CheckpointError: The file is missing or damaged.
            StorageError: It could not be written.
        """
        self.wait()
        path = self._path(name, step)
        try:
            return dict(load_file(path))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"checkpoint {str(path)!r} cannot be read; remove its folder to start anew"
            ) from error

    def _state(self, path: Path) -> RunState:
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            return RunState(**{**value, "candidates": [tuple(pair) for pair in value["candidates"]]})
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{str(path)!r} is damaged; remove the folder to start anew") from error

    def save(self, state: RunState, tensors: Weights, candidate: Weights) -> None:
        """Begin to save a run's state, and its present weights where they are among the best.

        Args:
            state: May change afterwards.
            tensors: Must not change until they are written.
            candidate: Must not change either.

        Raises:
            StorageError: The checkpoint before could not be written.
        """
        self.wait()
        saved = replace(state, candidates=list(state.candidates), curve=list(state.curve))
        self._began = time.monotonic()
        pool = futures.ThreadPoolExecutor(1, "checkpoint")
        self._writing = pool.submit(self._save, saved, tensors, candidate)
        pool.shutdown(wait=False)

    def check(self) -> None:
        """Raise what a checkpoint that is no longer under way failed with; waits for none.

        Raises:
            StorageError: It could not be written. The one before is whole.
        """
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Return when nothing is being written any more.

        Raises:
            StorageError: The last checkpoint could not be written. The one before is whole.
        """
        if self._writing is not None:
            futures.wait([self._writing])  # an interrupt here forgets nothing
            written, self._writing = self._writing, None
            written.result()

    def _save(self, state: RunState, tensors: Weights, candidate: Weights) -> None:
        with atomic.explained("save a checkpoint in", self.folder):
            atomic.make_folder(self.folder)
            if any(step == state.step for _, step in state.candidates):
                self._write("candidate", state.step, candidate)
            self._write("state", state.step, tensors)
            data = json.dumps(asdict(state), indent=1).encode()
            atomic.replace_file(self.folder / STATE, data, "checkpoint")()
            self._clean(state)
        self._longest = max(self._longest, time.monotonic() - self._began)

    def remove(self) -> None:
        """Remove the folder: the run is over.

        Raises:
            StorageError: The last checkpoint could not be written.
        """
        self.wait()
        atomic.remove_folder(self.folder)

    def _write(self, name: str, step: int, tensors: Weights) -> None:
        path = self._path(name, step)
        save_weights({key: value.contiguous() for key, value in tensors.items()}, path)
        atomic.sync_file(path)

    def _clean(self, state: RunState) -> None:
        current = {self._path("state", state.step), self.folder / STATE}
        current |= {self._path("candidate", step) for _, step in state.candidates}
        for path in self.folder.iterdir():
            if path not in current:
                path.unlink()

    def _path(self, name: str, step: int) -> Path:
        return self.folder / f"{name}-{step:08d}.safetensors"


def new_folder(out: Path) -> Path:
    """Return the absolute path of a folder that a result can be published as.

    Raises:
        TrainingError: Something is there already.
        StorageError: Nothing can be written beside it, which is better known before hours of training.
    """
    folder = out.expanduser().absolute()
    is_empty = folder.is_dir() and not any(folder.iterdir())
    if not is_empty and (folder.exists() or folder.is_symlink()):
        what = "is not empty" if folder.is_dir() else "is a file"
        raise TrainingError(f"output folder {str(out)!r} {what}; give a new one")
    with _file_beside(folder):
        return folder


@contextmanager
def _file_beside(folder: Path) -> Iterator[IO[bytes]]:
    """Give a nameless file in the nearest folder above another that is there already."""
    above = next(parent for parent in folder.parents if parent.is_dir())
    with atomic.explained("write in", above), TemporaryFile(dir=above) as file:
        yield file


def seconds_to_write(folder: Path, size: int) -> float:
    """Return the seconds that `size` bytes of weights take to be copied and made durable, as measured beside a folder.

    Raises:
        StorageError: Nothing can be written there.
    """
    began = time.monotonic()
    with _file_beside(folder) as file:
        file.write(bytes(_PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())
    return _WRITE_AT_LEAST + 2 * (time.monotonic() - began) * size / _PROBE_BYTES


def publish_folder(folder: Path, content: str, write: Callable[[Path], None]) -> None:
    """Let `write` fill an empty folder beside, make it durable, and give it its name as the last step.

    Where `write` fails that folder is removed.

    Args:
        folder: As `new_folder` returned it.
        content: What the folder holds, for messages and crash points: `encoder`, `towers`.
        write: Writes into the folder that it is given.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    with atomic.explained(f"save the {content} to", folder):
        atomic.remove_folder(partial)
        with atomic.folder_made(partial, f"save the {content} to"):
            try:
                write(partial)
            except BaseException:
                atomic.remove_folder(partial)
                raise
        for path in partial.rglob("*"):
            if path.is_file():
                atomic.sync_file(path)
            else:
                atomic.sync_directory(path)
        atomic.sync_directory(partial)
        atomic.rename(partial, folder, content)
