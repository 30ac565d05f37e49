"""What a training run did, for people, for programs and beside the towers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPORT_FILE = "training.json"


@dataclass(frozen=True, kw_only=True)
class HremReport:
    """The outcome of a run; `training.json` in the checkpoint holds the same.

    Attributes:
        encoder: The spec that opens the result: `hrem:PATH`.
        data: The folder that was learned from.
        bert: Where the text transformer came from, or `bigru`.
        dev: R@k of both directions and rsum on the dev split, of the weights that were kept; they were chosen by it.
        kept_epoch: The epoch that these weights are of.
        curve: One row for each evaluation: step, epoch, loss, recall.
        stopped_by: `finished`, `early`, `time_limit` or `interrupted`.
        counts: Pictures and captions of training and dev; parameters of the towers and of the relation.
        seconds: How long each stage took, and all of it.
        settings: All that the run depends on, with device and precision.
    """

    encoder: str
    data: str
    bert: str
    dev: dict[str, Any]
    kept_epoch: float
    curve: list[dict[str, Any]]
    stopped_by: str
    counts: dict[str, int]
    seconds: dict[str, float]
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)

    def to_text(self) -> str:
        """Return a few lines for people."""
        sides = (("text to image", "text_to_image"), ("image to text", "image_to_text"))
        figures = ", ".join(f"{word} {' / '.join(f'{x:.3f}' for x in self.dev[name].values())}" for word, name in sides)
        return "\n".join(
            [
                f"dev     {figures}; rsum {self.dev['rsum']:.1f} (weights were chosen by it)",
                f"kept    epoch {self.kept_epoch:.1f}; stopped by: {self.stopped_by}; {self.seconds['all']:.0f} s",
                f"encoder {self.encoder}",
            ]
        )

    def write(self, folder: Path) -> None:
        """Write `training.json`; encoders ignore it."""
        text = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        (folder / REPORT_FILE).write_text(text, encoding="utf-8")
