"""Token ids to one vector a text: BERT or a recurrent network, then the same head as for regions."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .config import TowersConfig
from .head import Embedded, FragmentHead


class BertStates(nn.Module):
    """The last hidden states of a transformer, mapped to the width of the towers."""

    def __init__(self, bert: Any, dim: int) -> None:
        super().__init__()
        self.bert = bert
        self.map = nn.Linear(bert.config.hidden_size, dim)

    def states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return (n, m, word_dim) states; they do not depend on what is trained where BERT is frozen."""
        found: torch.Tensor = self.bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return found

    def project(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return (n, m, dim)."""
        del mask
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

    def project(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return (n, m, dim)."""
        lengths = mask.sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
        found, _ = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=mask.shape[1])
        forward, backward = found.chunk(2, dim=-1)
        return (forward + backward) / 2


class TextTower(nn.Module):
    """Token ids, or states that were computed before, to unit vectors."""

    def __init__(self, words: BertStates | GruStates, config: TowersConfig) -> None:
        super().__init__()
        self.words = words
        self.head = FragmentHead(config)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> Embedded:
        """Return the embeddings of (n, m) token ids."""
        return self.from_states(self.words.states(ids, mask), mask)

    def from_states(self, states: torch.Tensor, mask: torch.Tensor) -> Embedded:
        """Return the embeddings of (n, m, word_dim) states."""
        embedded: Embedded = self.head(self.words.project(states, mask), mask)
        return embedded
