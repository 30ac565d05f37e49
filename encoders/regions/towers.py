"""The two towers together."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from .bert import Bert
from .config import TowersConfig
from .image_tower import ImageTower
from .text_tower import BertStates, GruStates, TextTower
from .tokens import Tokenizer, WordTokens


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
