"""Images and captions of a corpus to a `_precomp` folder of grid features, so that HREM runs on raw images."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from encoders import EncoderError, ImageError
from encoders.catalogue import resolve_preset
from encoders.checkpoints import load_towers
from encoders.device import Placement, choose_device
from encoders.lite import ConseTrunk
from encoders.preprocess import Preprocess
from indexer.corpus import SourceOptions
from storage.arguments import check_arguments, check_fields, exits_as_typed_wrong

from ..checkpoint import new_folder, publish_folder
from ..errors import ExamplesError, TrainingError
from ..examples import EVERYTHING, MAX_UNREADABLE, CaptionedImages, Content, decode, first_few, read_splits
from ..loop import FitProgress, Listener, ignore_progress
from .towers.region_features import CAPTIONS, FEATURES, IDS, NAMES

TIMM = "timm:"
# Of `lite`'s trunk the last two stages, of 192 and 320 channels: what a classifier has no use for, such as what people
# do, is lost in the features after them.
STAGES = 2


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """What turns images into maps.

    Attributes:
        spec: Its name.
        preprocess: An image to (3, H, W) float32.
        maps: (n, 3, H, W) to (n, channels, rows, columns).
        placement: Where it runs.
    """

    spec: str
    preprocess: Callable[[Image.Image], NDArray[np.float32]]
    maps: Callable[[torch.Tensor], torch.Tensor]
    placement: Placement

    def regions(self, images: list[Image.Image], grid: int | None) -> NDArray[np.float32]:
        """Return (n, regions, channels); with `grid` the maps are averaged into grid x grid cells."""
        pixels = torch.from_numpy(np.stack([self.preprocess(image) for image in images])).to(self.placement.device)
        device = self.placement
        with (
            torch.inference_mode(),
            torch.autocast(device.kind, dtype=device.dtype, enabled=device.precision != "fp32"),
        ):
            maps = self.maps(pixels).float()
        if grid is not None:
            maps = functional.adaptive_avg_pool2d(maps, grid)
        cells: NDArray[np.float32] = maps.flatten(2).transpose(1, 2).cpu().numpy()
        return cells


def load_trunk(spec: str, placement: Placement) -> Trunk:
    """Return the trunk of an encoder (`lite`, `ARCH/TAG`, `local-dir:PATH`, ...) or of timm (`timm:NAME`).

    Raises:
        EncoderError: It cannot be loaded, or gives no maps.
    """
    if spec.startswith(TIMM):
        return _timm(spec, placement)
    towers = load_towers(resolve_preset(spec))
    visual: Any = towers.model.visual
    visual.to(placement.device)
    trunk = getattr(visual, "trunk", None)
    if not isinstance(trunk, ConseTrunk) and not hasattr(visual, "forward_intermediates"):
        raise EncoderError(f"encoder {spec!r} gives no maps of its images; take lite, a ViT or ResNet, or timm:NAME")
    maps = _conse_maps(trunk) if isinstance(trunk, ConseTrunk) else _last_of(visual)
    return Trunk(spec=spec, preprocess=_preprocess(towers.preprocess), maps=maps, placement=placement)


def _timm(spec: str, placement: Placement) -> Trunk:
    import timm
    from timm.data.config import resolve_model_data_config

    try:
        model: Any = timm.create_model(spec.removeprefix(TIMM), pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError) as error:
        words = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"cannot load {spec!r}: {words}; give a timm model whose weights can be had, or lite"
        ) from error
    if not hasattr(model, "forward_intermediates"):
        raise EncoderError(f"{spec!r} gives no maps of its images; take a ResNet, ConvNeXt, EfficientNet or ViT")
    data: Any = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    config = {
        "size": data["input_size"][1:],
        "mode": "RGB",
        "mean": data["mean"],
        "std": data["std"],
        "interpolation": data["interpolation"],
        "resize_mode": "squash",
        "fill_color": 0,
    }
    model.eval().to(placement.device)

    def maps(pixels: torch.Tensor) -> torch.Tensor:
        levels: list[torch.Tensor] = model.forward_intermediates(pixels, indices=1, intermediates_only=True)
        return levels[-1]

    return Trunk(spec=spec, preprocess=_preprocess(config), maps=maps, placement=placement)


def _preprocess(config: Mapping[str, Any]) -> Callable[[Image.Image], NDArray[np.float32]]:
    return Preprocess(config)


def _conse_maps(trunk: ConseTrunk) -> Callable[[torch.Tensor], torch.Tensor]:
    def maps(pixels: torch.Tensor) -> torch.Tensor:
        backbone = trunk.backbone
        levels = [backbone.bn1(backbone.conv_stem(pixels))]
        for block in backbone.blocks:
            levels.append(block(levels[-1]))
        return torch.cat(levels[-STAGES:], dim=1)

    return maps


def _last_of(visual: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def maps(pixels: torch.Tensor) -> torch.Tensor:
        outputs = visual.forward_intermediates(pixels, indices=1, intermediates_only=True)
        last: torch.Tensor = outputs["image_intermediates"][-1]
        return last

    return maps


BATCH = 32
REGIONS_FILE = "regions.json"
DTYPES = ("float16", "float32")


@dataclass(frozen=True, kw_only=True)
class RegionsConfig:
    """How features are extracted.

    Attributes:
        encoder: Whose trunk: `lite`, any spec of `encoders.load_encoder`, or `timm:NAME`.
        grid: Average the trunk's map into grid x grid cells; None keeps its own (7 x 7 of most at 224 pixels). 4 to 7;
            time and memory of training grow with its square.
        dtype: `float16` halves the files and loses nothing that matters; `float32` as the published ones.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto` (16 bits on a GPU), `fp32`, `bf16` or `fp16` (on a GPU only).
    """

    encoder: str = "lite"
    grid: int | None = None
    dtype: str = "float16"
    device: str = "auto"
    precision: str = "auto"

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        check_fields(self, TrainingError)
        if self.grid is not None and self.grid < 1:
            raise TrainingError(f"grid is {self.grid!r}; give 1 or more")
        if self.dtype not in DTYPES:
            raise TrainingError(f"dtype is {self.dtype!r}; choose one of {', '.join(DTYPES)}")


DEFAULTS = RegionsConfig()


def write_regions(
    corpus: str | Path,
    out: str | Path,
    config: RegionsConfig = DEFAULTS,
    options: SourceOptions = EVERYTHING,
    progress: Listener | None = None,
) -> dict[str, Any]:
    """Write the folder and return what is in it: images, captions, regions and dim, and images left out.

    Every split of the corpus becomes one of the folder; a corpus without splits becomes `train`. Images that cannot
    be read are left out with their captions.

    Args:
        corpus: As `read_captions` takes it.
        out: A new or an empty folder; it appears whole or not at all.
        config: Settings.
        options: How to read the corpus: columns, layout, the folder of the images.
        progress: Called as the work goes on.

    Raises:
        ExamplesError: The corpus cannot be used, or more than 5 % of its images.
        EncoderError: The trunk cannot be loaded.
    """
    check_arguments(write_regions, locals(), TrainingError)
    folder, source = new_folder(Path(out)), Path(corpus).expanduser()
    splits = read_splits(source, options)
    if len(splits) > 1:
        splits.pop(None, None)
    trunk = load_trunk(config.encoder, choose_device(config.device, config.precision))
    home = options.root or (source if source.is_dir() else source.parent)
    facts: dict[str, Any] = {**asdict(config)}

    def write(partial: Path) -> None:
        writer = _Writer(partial, home, trunk, config, progress or ignore_progress)
        facts["splits"] = {name or "train": writer.write(name or "train", one) for name, one in splits.items()}
        facts["left_out"] = writer.left_out
        (partial / REGIONS_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        (partial / NAMES).write_text(json.dumps(writer.names, indent=1) + "\n", encoding="utf-8")

    publish_folder(folder, "regions", write)
    return {"folder": str(folder), **facts}


class _Writer:
    """Writes one split after the other; ids count on through all of them."""

    def __init__(self, folder: Path, home: Path, trunk: Trunk, config: RegionsConfig, listen: Listener) -> None:
        self._folder, self._home, self._trunk, self._config, self._listen = folder, home, trunk, config, listen
        self.names: dict[str, str] = {}
        self.left_out: list[str] = []

    def write(self, split: str, examples: CaptionedImages) -> dict[str, int]:
        """Write the three files of a split."""
        path = self._folder / f"{split}{FEATURES}"
        kept, shape = self._features(path, split, examples)
        if len(kept) < len(examples):
            _shorten(path, len(kept))
        captions, ids = [], []
        for index in kept:
            number = str(len(self.names))
            self.names[number] = self._name(examples.images[index], number)
            texts = [" ".join(text.split()) for text in examples.captions[index]]
            captions += texts
            ids += [number] * len(texts)
        (self._folder / f"{split}{CAPTIONS}").write_text("\n".join(captions) + "\n", encoding="utf-8")
        (self._folder / f"{split}{IDS}").write_text("\n".join(ids) + "\n", encoding="utf-8")
        return {"images": len(kept), "captions": len(captions), "regions": shape[0], "dim": shape[1]}

    def _features(self, path: Path, split: str, examples: CaptionedImages) -> tuple[list[int], tuple[int, int]]:
        kept: list[int] = []
        broken: list[str] = []
        array: np.memmap[Any, Any] | None = None
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(examples), BATCH):
                decoded = list(pool.map(_decoded, examples.images[start : start + BATCH]))
                good = [at for at, one in enumerate(decoded) if isinstance(one, Image.Image)]
                broken += [f"image {start + at}: {one}" for at, one in enumerate(decoded) if isinstance(one, str)]
                if good:
                    cells = self._trunk.regions([decoded[at] for at in good], self._config.grid)  # type: ignore[misc]
                    if array is None:
                        shape = (len(examples), *cells.shape[1:])
                        array = open_memmap(path, mode="w+", dtype=self._config.dtype, shape=shape)
                    array[len(kept) : len(kept) + len(good)] = cells
                    kept += [start + at for at in good]
                self._listen(FitProgress(stage=f"regions of {split}", done=start + len(decoded), total=len(examples)))
        if array is None or len(broken) > MAX_UNREADABLE * len(examples):
            raise ExamplesError(f"{len(broken)} of {len(examples)} {split} images cannot be read: {first_few(broken)}")
        array.flush()
        self.left_out += [*examples.left_out, *broken]
        return kept, (int(array.shape[1]), int(array.shape[2]))

    def _name(self, image: Content, number: str) -> str:
        if not isinstance(image, str | Path):
            return f"image-{number}"
        path = Path(image)
        return path.relative_to(self._home).as_posix() if path.is_relative_to(self._home) else path.as_posix()


def _decoded(image: Content) -> Image.Image | str:
    try:
        return decode(image).pixels
    except ImageError as error:
        return str(error)


def _shorten(path: Path, rows: int) -> None:
    whole = np.load(path, mmap_mode="r")
    short = path.with_name(f".{path.name}.short")
    target = open_memmap(short, mode="w+", dtype=whole.dtype, shape=(rows, *whole.shape[1:]))
    for start in range(0, rows, BATCH):
        stop = min(rows, start + BATCH)
        target[start:stop] = whole[start:stop]
    target.flush()
    short.replace(path)
