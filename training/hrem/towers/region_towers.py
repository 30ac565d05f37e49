"""The two towers together, and the folder in which a checkpoint keeps them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from encoders.errors import EncoderError
from encoders.two_towers import save_weights

from .bert import Bert, empty_bert
from .tokens import Tokenizer, WordTokens, load_vocabulary

_GPO_DIM = 32
_GPO_TEMPERATURE = 0.1


@dataclass(frozen=True)
class Padding:
    """Where the fragments of a batch lie, found on the CPU: to ask a GPU for it would wait for all it has to compute.

    Attributes:
        lengths: (n,) int64 on the CPU, longest first.
        order: (n,) the items in that order, on the device.
        back: (n,) where each item is in that order, on the device.
        positions: The rows of (n * m, dim) fragments that are no padding, in their order, on the device.
    """

    lengths: torch.Tensor
    order: torch.Tensor
    back: torch.Tensor
    positions: torch.Tensor

    @classmethod
    def of(cls, mask: torch.Tensor) -> Padding:
        """Return that of an (n, m) mask, on its device: on the CPU it takes no time, from a GPU it would wait."""
        here = mask.cpu()
        lengths, order = here.sum(1).sort(descending=True)
        found = cls(lengths, order, order.argsort(), here.reshape(-1).nonzero().squeeze(1))
        return found.through(lambda tensor: tensor.to(mask.device))

    def through(self, moved: Callable[[torch.Tensor], torch.Tensor]) -> Padding:
        """Return the same with all but the lengths moved: pinned, or sent to the device."""
        return Padding(self.lengths, moved(self.order), moved(self.back), moved(self.positions))

    def recurrent(self, network: nn.GRU, states: torch.Tensor) -> torch.Tensor:
        """Return the output of a network for (n, m, dim) states, which sees no padding; zeros in its place."""
        packed = nn.utils.rnn.pack_padded_sequence(states.index_select(0, self.order), self.lengths, batch_first=True)
        outputs, _ = nn.utils.rnn.pad_packed_sequence(
            network(packed)[0], batch_first=True, total_length=states.shape[1]
        )
        return outputs.index_select(0, self.back)


def masked_mean(fragments: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return (n, dim) means over the fragments of (n, m, dim)."""
    weights = mask.unsqueeze(-1).to(fragments.dtype)
    return (fragments * weights).sum(1) / weights.sum(1).clamp(min=1)


class MaxPooling(nn.Module):
    """The mean of the k largest values of each dimension; of all of them where an item has fewer fragments than k."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, fragments: torch.Tensor, mask: torch.Tensor, padding: Padding | None = None) -> torch.Tensor:
        """Return (n, dim) for (n, m, dim) fragments."""
        del padding
        k = min(self.k, fragments.shape[1])
        hidden = fragments.masked_fill(~mask.unsqueeze(-1), float("-inf"))
        top = hidden.topk(k, dim=1).values
        there = torch.isfinite(top)
        return top.masked_fill(~there, 0.0).sum(1) / there.sum(1).clamp(min=1)


class GeneralisedPooling(nn.Module):
    """GPO (Chen et al. 2021): the sorted values of each dimension, weighted by a small network that sees only ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.ranks = nn.GRU(_GPO_DIM, _GPO_DIM, batch_first=True, bidirectional=True)
        self.score = nn.Linear(_GPO_DIM, 1, bias=False)

    def forward(self, fragments: torch.Tensor, mask: torch.Tensor, padding: Padding | None = None) -> torch.Tensor:
        """Return (n, dim) for (n, m, dim) fragments."""
        count = fragments.shape[1]
        lengths = mask.sum(1)
        there = torch.arange(count, device=mask.device) < lengths.unsqueeze(1)
        codes = rank_codes(count, _GPO_DIM, fragments.device).expand(len(fragments), -1, -1)
        states = (padding or Padding.of(mask)).recurrent(self.ranks, codes)
        both = (states[..., :_GPO_DIM] + states[..., _GPO_DIM:]) / 2
        scores = self.score(both).squeeze(-1).masked_fill(~there, float("-inf"))
        weights = torch.softmax(scores / _GPO_TEMPERATURE, dim=1)
        ordered = fragments.masked_fill(~mask.unsqueeze(-1), float("-inf")).sort(dim=1, descending=True).values
        pooled: torch.Tensor = (ordered.masked_fill(~there.unsqueeze(-1), 0.0) * weights.unsqueeze(-1)).sum(1)
        return pooled


def rank_codes(count: int, dim: int, device: torch.device | None = None) -> torch.Tensor:
    """Return (count, dim) sine and cosine codes of the ranks (Vaswani et al. 2017)."""
    steps = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10000.0) / dim))
    angles = torch.arange(count, device=device).unsqueeze(1) * steps
    return torch.stack([angles.sin(), angles.cos()], dim=2).reshape(count, dim)


Pooling = Literal["max", "gpo"]
Words = Literal["bert", "bigru"]


@dataclass(frozen=True, kw_only=True)
class TowersConfig:
    """What a checkpoint needs to be built again. The defaults are those of HREM's published code.

    Attributes:
        region_dim: Length of one region's features: 2048 of bottom-up attention, 320 or 1280 of `lite`'s trunk.
        max_regions: Regions of an image at most.
        dim: Length of the embeddings; 256 to 1024. Time and memory grow with its square.
        words: `bert`: a transformer from any folder or hub; `bigru`: word vectors and a recurrent network.
        word_dim: Length of BERT's token states, or of the word vectors of `bigru` (300).
        max_tokens: Tokens of a text at most, [CLS] and [SEP] included; the rest is cut.
        fragment_relation: Whether the regions of an image, and the words of a text, attend to each other.
        residual_weight: Share of the embedding pooled before that attention; 0.8 of it and 0.2 of what comes after.
        pooling: Before the attention: `max`, the mean of the `max_k` largest values of each dimension; `gpo`, learned
            weights of the sorted values (Chen et al. 2021, "Learning the Best Pooling Strategy ...").
        max_k: Values that `max` takes.
        heads: Of each attention layer; must divide `dim`.
        layers: Attention layers of a tower.
        ff_dim: Width inside an attention layer; None for `dim`.
        dropout: In the attention layers.
    """

    region_dim: int
    max_regions: int
    dim: int = 1024
    words: Words = "bert"
    word_dim: int = 768
    max_tokens: int = 64
    fragment_relation: bool = True
    residual_weight: float = 0.8
    pooling: Pooling = "max"
    max_k: int = 2
    heads: int = 16
    layers: int = 1
    ff_dim: int | None = None
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.heads < 1 or self.dim < 1 or self.dim % self.heads:
            raise EncoderError(f"dim {self.dim} cannot be cut into {self.heads} heads; give a multiple")
        for name in ("region_dim", "max_regions", "word_dim", "max_k", "layers"):
            if getattr(self, name) < 1:
                raise EncoderError(f"{name} is {getattr(self, name)!r}; give 1 or more")
        if self.max_tokens < 3:
            raise EncoderError(f"max_tokens is {self.max_tokens}; give 3 or more, since two go to [CLS] and [SEP]")
        if not 0 <= self.residual_weight <= 1:
            raise EncoderError(f"residual_weight is {self.residual_weight!r}; give a share from 0 to 1")
        if self.pooling not in ("max", "gpo") or self.words not in ("bert", "bigru"):
            raise EncoderError(
                f"pooling {self.pooling!r} or words {self.words!r} is unknown; choose max, gpo; bert, bigru"
            )


EPSILON = 1e-8


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """One tower's output for a batch.

    Attributes:
        unit: (n, dim) unit rows: the embeddings.
        raw: (n, dim) before normalisation.
        fragments: (n, m, dim) before attention and pooling.
        mask: (n, m) True where there is a fragment.
    """

    unit: torch.Tensor
    raw: torch.Tensor
    fragments: torch.Tensor
    mask: torch.Tensor


def attention_layer(dim: int, heads: int, ff_dim: int, dropout: float) -> nn.TransformerEncoderLayer:
    """Return one post-norm transformer encoder layer without positions (Vaswani et al. 2017)."""
    return nn.TransformerEncoderLayer(dim, heads, ff_dim, dropout, activation="relu", batch_first=True)


class FragmentHead(nn.Module):
    """Pool; let fragments attend to each other and pool again; mix (HREM's fragment-level relation)."""

    def __init__(self, config: TowersConfig) -> None:
        super().__init__()
        self.weight = config.residual_weight
        self.pool = MaxPooling(config.max_k) if config.pooling == "max" else GeneralisedPooling()
        layers = config.layers if config.fragment_relation else 0
        ff_dim = config.ff_dim or config.dim
        self.relation = nn.ModuleList(
            attention_layer(config.dim, config.heads, ff_dim, config.dropout) for _ in range(layers)
        )

    def forward(self, fragments: torch.Tensor, mask: torch.Tensor, padding: Padding | None = None) -> Embedded:
        """Return the embeddings of (n, m, dim) fragments."""
        raw = self.pool(fragments, mask, padding)
        if len(self.relation):
            states = fragments
            for layer in self.relation:
                states = layer(states, src_key_padding_mask=~mask)
            raw = self.weight * raw + (1 - self.weight) * masked_mean(states, mask)
        return Embedded(unit=functional.normalize(raw, dim=-1, eps=EPSILON), raw=raw, fragments=fragments, mask=mask)


class RegionProjection(nn.Module):
    """A linear map plus a small network, half as wide as the embeddings: (n, m, region_dim) -> (n, m, dim)."""

    def __init__(self, region_dim: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(region_dim, dim)
        hidden = max(1, dim // 2)
        self.wide = nn.Linear(region_dim, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.narrow = nn.Linear(hidden, dim)
        for layer in (self.linear, self.wide, self.narrow):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, regions: torch.Tensor, mask: torch.Tensor, padding: Padding | None = None) -> torch.Tensor:
        """Return the projected regions; rows of padding are zero and leave no trace in the norm's statistics."""
        positions = (padding or Padding.of(mask)).positions
        there = regions.flatten(0, 1).index_select(0, positions)
        if self.training and len(there) < 2:
            raise ValueError("batch norm needs at least two regions in a training batch")
        hidden: torch.Tensor = self.linear(there) + self.narrow(torch.relu(self.norm(self.wide(there))))
        projected = hidden.new_zeros(mask.numel(), hidden.shape[-1]).index_copy(0, positions, hidden)
        return projected.view(*mask.shape, -1)


class ImageTower(nn.Module):
    """Regions to unit vectors."""

    def __init__(self, config: TowersConfig) -> None:
        super().__init__()
        self.project = RegionProjection(config.region_dim, config.dim)
        self.head = FragmentHead(config)

    def forward(self, regions: torch.Tensor, mask: torch.Tensor, padding: Padding | None = None) -> Embedded:
        """Return the embeddings of (n, m, region_dim) regions; `padding` spares a GPU the wait for where they lie."""
        padding = padding or Padding.of(mask)
        embedded: Embedded = self.head(self.project(regions, mask, padding), mask, padding)
        return embedded


class BertStates(nn.Module):
    """The last hidden states of a transformer, mapped to the width of the towers."""

    def __init__(self, bert: Any, dim: int) -> None:
        super().__init__()
        self.bert = bert
        self.map = nn.Linear(bert.config.hidden_size, dim)

    def states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return (n, m, word_dim) states; they do not depend on what is trained where BERT is frozen."""
        states: torch.Tensor = self.bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return states

    def project(self, states: torch.Tensor, mask: torch.Tensor, padding: Padding | None = None) -> torch.Tensor:
        """Return (n, m, dim)."""
        del mask, padding
        projected: torch.Tensor = self.map(states)
        return projected


class GruStates(nn.Module):
    """Word vectors through a bidirectional GRU, its two directions averaged."""

    def __init__(self, vocabulary: int, word_dim: int, dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, word_dim, padding_idx=0)
        self.gru = nn.GRU(word_dim, dim, batch_first=True, bidirectional=True)
        nn.init.uniform_(self.embed.weight, -0.1, 0.1)

    def states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return (n, m, word_dim) word vectors."""
        del mask
        vectors: torch.Tensor = self.embed(ids)
        return vectors

    def project(self, states: torch.Tensor, mask: torch.Tensor, padding: Padding | None = None) -> torch.Tensor:
        """Return (n, m, dim)."""
        outputs = (padding or Padding.of(mask)).recurrent(self.gru, states)
        forward, backward = outputs.chunk(2, dim=-1)
        return (forward + backward) / 2


class TextTower(nn.Module):
    """Token ids, or states that were computed before, to unit vectors."""

    def __init__(self, words: BertStates | GruStates, config: TowersConfig) -> None:
        super().__init__()
        self.words = words
        self.head = FragmentHead(config)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, padding: Padding | None = None) -> Embedded:
        """Return the embeddings of (n, m) token ids."""
        return self.from_states(self.words.states(ids, mask), mask, padding)

    def from_states(self, states: torch.Tensor, mask: torch.Tensor, padding: Padding | None = None) -> Embedded:
        """Return the embeddings of (n, m, word_dim) states."""
        embedded: Embedded = self.head(self.words.project(states, mask, padding), mask, padding)
        return embedded


class RegionTowers(nn.Module):
    """An image tower over regions, a text tower over words, and the tokenizer of the latter.

    Attributes:
        config: Their shape.
        tokenizer: Texts to the ids that the text tower takes.
    """

    def __init__(self, config: TowersConfig, words: Bert | WordTokens) -> None:
        super().__init__()
        if isinstance(words, Bert):
            config = replace(config, words="bert", word_dim=int(words.model.config.hidden_size))
            source: BertStates | GruStates = BertStates(words.model, config.dim)
            self.tokenizer: Tokenizer = words.tokenizer
        else:
            config = replace(config, words="bigru")
            source = GruStates(words.size, config.word_dim, config.dim)
            self.tokenizer = words
        self.config = config
        self.image = ImageTower(config)
        self.text = TextTower(source, config)


CONFIG_FILE, WEIGHTS_FILE, TEXT_FOLDER = "hrem.json", "towers.safetensors", "text"
# Towers of format 1 were 512 wide inside the regions' projection, whatever the embeddings' length.
FORMAT = 2
_FAILURES = (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError, SafetensorError)


def save_towers(towers: RegionTowers, folder: Path) -> None:
    """Write towers into an existing, empty folder.

    Raises:
        EncoderError: There is something in the folder.
    """
    if any(folder.iterdir()):
        raise EncoderError(f"folder {str(folder)!r} is not empty; give a new one to save the towers to")
    text = folder / TEXT_FOLDER
    text.mkdir()
    if isinstance(towers.text.words, BertStates):
        towers.text.words.bert.config.save_pretrained(text)
    towers.tokenizer.save(text)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in towers.state_dict().items()}
    save_weights(weights, folder / WEIGHTS_FILE)
    value = {"format": FORMAT, "towers": asdict(towers.config)}
    (folder / CONFIG_FILE).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def load_towers(folder: Path) -> RegionTowers:
    """Return the towers of a folder, fp32, on the CPU, in eval mode.

    Raises:
        EncoderError: The folder is no checkpoint, is damaged, or its weights have other shapes than it says.
    """
    config = _config(folder)
    try:
        if config.words == "bert":
            towers = RegionTowers(config, empty_bert(folder / TEXT_FOLDER, config.max_tokens))
        else:
            towers = RegionTowers(config, load_vocabulary(folder / TEXT_FOLDER, config.max_tokens))
        towers.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except _FAILURES as error:
        words = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"checkpoint {str(folder)!r} cannot be loaded: {words}; its files do not belong together, train it again"
        ) from error
    return towers.eval()


def _config(folder: Path) -> TowersConfig:
    path = folder / CONFIG_FILE
    if not path.is_file():
        what = f"holds no {CONFIG_FILE}" if folder.is_dir() else "is not a folder"
        raise EncoderError(
            f"HREM checkpoint {str(folder)!r} {what}; give hrem:PATH of a folder made by twinlens fit-hrem"
        )
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']!r} is not {FORMAT}")
        return TowersConfig(**value["towers"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EncoderError(f"{str(path)!r} is damaged or of another version: {error}; train it again") from error
