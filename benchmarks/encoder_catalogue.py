"""The catalogue of encoders: its sizes counted again, its presets derived again, its table put into the documentation.

python benchmarks/encoder_catalogue.py --write      # encoders.json and docs/encoders.md
python benchmarks/encoder_catalogue.py --measure    # speed on this machine, into benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import HOME, Figure, record

from encoders.catalogue.entries import CatalogueEntry, load_entries, read_file
from encoders.catalogue.presets import PRESETS, Kind
from twinlens.encoder_table import KINDS, EncoderRow, encoder_rows, sorted_rows, table_markdown

FILE = HOME / "encoders" / "catalogue" / "encoders.json"
PAGE = HOME / "docs" / "encoders.md"
BEGIN, END = "<!-- table: benchmarks/encoder_catalogue.py --write -->", "<!-- end of table -->"
# ViT-B/32 at 256 pixels, and ViT-B/16 at 256: billions of operations for an image.
ABOUT_B32, ON_CPU = 12.0, 50.0
# Recall of 5,000 images does not tell encoders apart that lie closer: the cheapest of them is taken.
CLOSE = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--device", default="cpu", choices=KINDS)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--most", type=float, default=60.0, help="billions of operations an image")
    arguments = parser.parse_args()
    if arguments.write:
        write_catalogue()
        write_page()
    if arguments.measure:
        measure(arguments.device, arguments.seconds, arguments.most)


def write_catalogue() -> None:
    """Write `encoders.json` with sizes as they are counted and presets as they follow."""
    lines = [{**line, **sizes(entry)} for line, entry in zip(read_file()["encoders"], load_entries(), strict=True)]
    whole = {**read_file(), "presets": derived_presets(), "encoders": lines}
    head = json.dumps({name: value for name, value in whole.items() if name != "encoders"}, indent=1)
    body = ",\n".join(f"  {json.dumps(line, ensure_ascii=False)}" for line in lines)
    FILE.write_text(f'{head[:-2]},\n "encoders": [\n{body}\n ]\n}}\n', encoding="utf-8")


def write_page() -> None:
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def page_with_table(text: str) -> str:
    """Return a page with the table between its marks as it is now."""
    table = f"{BEGIN}\n{table_markdown(sorted_rows(encoder_rows(), 'recall'))}\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: table, text, flags=re.DOTALL)


def sizes(entry: CatalogueEntry) -> dict[str, float]:
    """Return the parameters and operations of both towers, in millions and billions, counted without data or weights.

    A text tower that is described on the Hugging Face hub is not counted; the image tower is.
    """
    import torch
    from open_clip import get_model_config
    from open_clip.model import _build_text_tower, _build_vision_tower

    config: dict[str, Any] = get_model_config(entry.architecture)
    gelu = bool(config.get("quick_gelu"))
    with torch.device("meta"):
        image = _build_vision_tower(config["embed_dim"], config["vision_cfg"], gelu)
    side = config["vision_cfg"]["image_size"]
    counted = {"image": counts(image, torch.empty(1, 3, side, side, device="meta"))}
    if "hf_model_name" not in config["text_cfg"]:
        with torch.device("meta"):
            text = _build_text_tower(config["embed_dim"], config["text_cfg"], gelu)
        length = config["text_cfg"].get("context_length", 77)
        counted["text"] = counts(text, torch.zeros(1, length, dtype=torch.long, device="meta"))
    return {f"{name}_{unit}": value for name, pair in counted.items() for unit, value in pair.items()}


def counts(tower: Any, example: Any) -> dict[str, float]:
    from torch.utils.flop_counter import FlopCounterMode

    tower.eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        tower(example)
    parameters = sum(parameter.numel() for parameter in tower.parameters())
    return {"mparams": round(parameters / 1e6, 2), "gflops": round(counter.get_total_flops() / 1e9, 2)}


@dataclass(frozen=True)
class Candidate:
    """An encoder that a preset may stand for."""

    row: EncoderRow
    recall: float


def derived_presets() -> dict[str, dict[Kind, str]]:
    """Return what each preset stands for by what the table publishes: open licences alone.

    `fast` is the least arithmetic for an image and a text, the better recall among equals. The others are the best
    recall within a budget of operations an image, and of those within half a point of it the cheapest: `balanced` about
    ViT-B/32, `best` what a core of a CPU does in a fifth of a second or so and anything on a GPU, `multilingual` about
    ViT-B/32 on a CPU and anything on a GPU, by the mean over all languages. Recall must be published both ways.
    """
    rows = [row for row in encoder_rows() if row.entry.terms == "open"]
    coco = [Candidate(row, row.recall) for row in rows if row.recall is not None]
    most = max(len(row.entry.xm3600) for row in rows)
    spoken = [row for row in rows if len(row.entry.xm3600) == most]
    many = [Candidate(row, sum(row.entry.xm3600.values()) / most) for row in spoken]
    quick = min(coco, key=lambda one: (one.row.entry.image_gflops + (one.row.entry.text_gflops or 1e9), -one.recall))
    found: dict[str, dict[Kind, str]] = {
        "fast": {"cpu": quick.row.entry.spec, "cuda": quick.row.entry.spec},
        "balanced": {"cpu": best(coco, ABOUT_B32), "cuda": best(coco, ABOUT_B32)},
        "best": {"cpu": best(coco, ON_CPU), "cuda": best(coco)},
        "multilingual": {"cpu": best(many, ABOUT_B32), "cuda": best(many)},
    }
    return {name: found[name] for name in PRESETS}


def best(candidates: list[Candidate], budget: float = float("inf")) -> str:
    within = [one for one in candidates if one.row.entry.image_gflops <= budget]
    top = max(one.recall for one in within)
    return min(
        (one for one in within if one.recall > top - CLOSE), key=lambda one: one.row.entry.image_gflops
    ).row.entry.spec


def measure(kind: Kind, seconds: float, most: float) -> Path:
    """Record the speed of each architecture of at most `most` billion operations an image, or why there is none."""
    from twinlens.commands.encoders import measured_rows

    asked = [row for row in encoder_rows() if row.entry.image_gflops <= most]
    rows = {row.entry.architecture: row for row in measured_rows(asked, kind, seconds)}
    speeds = {name: row.speed for name, row in rows.items() if row.speed is not None}
    figures = [
        Figure(f"{name}: images", round(speed.images_per_second, 2), unit="/s") for name, speed in speeds.items()
    ]
    figures += [Figure(f"{name}: a short text", round(speed.text_ms, 1), unit="ms") for name, speed in speeds.items()]
    figures += [Figure(f"{name}: {row.not_measured}", "not measured") for name, row in rows.items() if not row.speed]
    notes = (
        "`twinlens encoders --measure`: random weights. On a CPU: one core, fp32, batches of 8 preprocessed images, "
        "seconds of the core's own work, so that other programs matter through caches and memory alone. "
        f"Load average of the machine at the end: {', '.join(f'{load:.1f}' for load in os.getloadavg())}."
    )
    return record("encoders" if kind == "cpu" else f"encoders_{kind}", figures, notes)


if __name__ == "__main__":
    main()
