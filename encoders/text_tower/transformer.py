"""The forward pass of a text transformer in NumPy: token ids to unit vectors, without torch.

One class computes the text towers of CLIP (Radford et al. 2021; norm before each block) and those of the BERT family
(Devlin et al. 2019; norm after each block). Texts of a batch stand one behind the other without padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import TowerError

Rows = NDArray[np.float32]
Ids = NDArray[np.int64]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
Pooling = Literal["first", "last", "highest", "token", "mean", "centred_mean"]

# OpenBLAS copies the matrices of a product to where it wants them, which for a few rows costs twice the product itself;
# a block of so few columns it reads where it lies.
_FEW_ROWS = 24
_BLOCK, _NARROW_BLOCK = 32, 16
_NARROW_ABOVE = 28_000
# Tokens that go through the layers together; more would leave the caches.
_PASS_TOKENS = 1024


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a text transformer computes with its weights.

    Attributes:
        layers: Blocks of attention and MLP.
        heads: Attention heads of each.
        dim: Length of the vectors.
        norm: Whether norms stand `before` or `after` attention and MLP.
        activation: Between the two layers of the MLP.
        epsilon: Added to the variance in norms.
        causal: Whether a token sees only those before it.
        pooling: How the tokens of a text become one vector: the `first`, the `last`, that with the `highest` id (CLIP's
            end of text), the first that is `pool_token`, the `mean`, or `centred_mean`: the unit mean less a centroid.
        pool_token: The id that `token` looks for.
        pad: The id that the model masks out wherever it stands; None where padding is a token like any other.
        counted: Whether positions leave masked tokens out (RoBERTa) or count them (BERT).
    """

    layers: int
    heads: int
    dim: int
    norm: Literal["before", "after"]
    activation: Activation
    epsilon: float
    causal: bool
    pooling: Pooling
    pool_token: int | None = None
    pad: int | None = None
    counted: bool = False


class TextTransformer:
    """A text transformer: weights and what to compute with them. Safe from many threads."""

    def __init__(self, architecture: Architecture, weights: Mapping[str, Rows]) -> None:
        """Check that the weights fit; they may be mapped from a file, and only the rows in use are read.

        Raises:
            TowerError: A weight is missing, is of another shape, or is not known.
        """
        self._made = architecture
        self._weights = dict(weights)
        _check(architecture, self._weights)

    @property
    def positions(self) -> int:
        """The most tokens that a text can have."""
        return len(self._weights["positions"])

    def encode(self, texts: Sequence[Ids]) -> Rows:
        """Return (n, dim) float32 unit rows for the token ids of texts.

        Raises:
            TowerError: A text has no token, more than `positions`, or an id that the vocabulary lacks.
        """
        vectors = np.empty((len(texts), self._made.dim), dtype=np.float32)
        start = 0
        while start < len(texts):
            stop, tokens = start + 1, len(texts[start])
            while stop < len(texts) and tokens + len(texts[stop]) <= _PASS_TOKENS:
                tokens += len(texts[stop])
                stop += 1
            vectors[start:stop] = self._pass(texts[start:stop])
            start = stop
        return vectors

    def _pass(self, texts: Sequence[Ids]) -> Rows:
        kept = [self._unmasked(ids) for ids in texts]
        bounds = np.cumsum([0, *(len(columns) for columns in kept)]).tolist()
        spans = list(pairwise(bounds))
        x = self._embedded(texts, kept)
        for layer in range(self._made.layers):
            x = self._block(x, layer, spans)
        return self._vectors(np.stack([self._pooled(x[a:b], ids) for (a, b), ids in zip(spans, texts, strict=True)]))

    def _unmasked(self, ids: Ids) -> Ids:
        columns = np.arange(len(ids)) if self._made.pad is None else np.flatnonzero(ids != self._made.pad)
        if not len(columns) > 0 or len(ids) > self.positions:
            raise TowerError(f"a text has {len(ids)} tokens, and this text tower takes 1 to {self.positions}")
        return columns

    def _embedded(self, texts: Sequence[Ids], kept: Sequence[Ids]) -> Rows:
        table = self._weights["tokens"]
        ids = np.concatenate([text[columns] for text, columns in zip(texts, kept, strict=True)])
        if ids.min() < 0 or ids.max() >= len(table):
            raise TowerError(f"token id {ids.max()} is not in [0, {len(table)}); the text tower is damaged")
        positions = np.concatenate([np.arange(len(columns)) if self._made.counted else columns for columns in kept])
        x = table[ids] + self._weights["positions"][positions]
        return x if self._made.norm == "before" else self._norm(x, "embedding_norm")

    def _block(self, x: Rows, layer: int, spans: Sequence[tuple[int, int]]) -> Rows:
        first, second = f"{layer}.norm1", f"{layer}.norm2"
        if self._made.norm == "before":
            x = x + self._attention(self._norm(x, first), layer, spans)
            return x + self._mlp(self._norm(x, second), layer)
        x = self._norm(x + self._attention(x, layer, spans), first)
        return self._norm(x + self._mlp(x, layer), second)

    def _attention(self, x: Rows, layer: int, spans: Sequence[tuple[int, int]]) -> Rows:
        heads, width = self._made.heads, x.shape[1]
        packed = self._linear(x, f"{layer}.qkv").reshape(len(x), 3, heads, width // heads)
        packed[:, 0] *= np.float32((width // heads) ** -0.5)
        mixed = np.empty((len(x), heads, width // heads), dtype=np.float32)
        for start, stop in spans:
            queries, keys, values = packed[start:stop].transpose(1, 2, 0, 3)
            scores = queries @ keys.transpose(0, 2, 1)
            if self._made.causal:
                scores += _causal_mask(stop - start)
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            mixed[start:stop] = (scores @ values).transpose(1, 0, 2)
        return self._linear(mixed.reshape(len(x), width), f"{layer}.out")

    def _mlp(self, x: Rows, layer: int) -> Rows:
        return self._linear(ACTIVATIONS[self._made.activation](self._linear(x, f"{layer}.up")), f"{layer}.down")

    def _pooled(self, x: Rows, ids: Ids) -> Rows:
        pooling = self._made.pooling
        if pooling == "mean":
            return _mean(x)
        if pooling == "centred_mean":
            mean = _mean(x)
            centred: Rows = mean / max(float(np.sqrt(mean @ mean)), 1e-12) - self._weights["centroid"]
            return centred + self._weights["map.weight"] @ centred if "map.weight" in self._weights else centred
        if pooling == "first":
            position = 0
        elif pooling == "last":
            position = len(x) - 1
        else:
            position = int(ids.argmax() if pooling == "highest" else (ids == self._made.pool_token).argmax())
        pooled: Rows = x[position]
        return pooled

    def _vectors(self, x: Rows) -> Rows:
        if self._made.norm == "before":
            x = self._norm(x, "final_norm")
        if "hidden_projection.weight" in self._weights:
            x = gelu(self._linear(x, "hidden_projection"))
        if "projection.weight" in self._weights:
            x = self._linear(x, "projection")
        vectors: Rows = x / np.maximum(np.sqrt(np.vecdot(x, x)), np.float32(1e-12))[:, None]
        return vectors

    def _norm(self, x: Rows, name: str) -> Rows:
        x = x - x.mean(axis=-1, keepdims=True)
        x /= np.sqrt(np.vecdot(x, x)[:, None] / np.float32(x.shape[1]) + np.float32(self._made.epsilon))
        x *= self._weights[f"{name}.weight"]
        x += self._weights[f"{name}.bias"]
        return x

    def _linear(self, x: Rows, name: str) -> Rows:
        product = times_transposed(x, self._weights[f"{name}.weight"])
        bias = self._weights.get(f"{name}.bias")
        if bias is not None:
            product += bias
        return product


def times_transposed(x: Rows, weight: Rows) -> Rows:
    """Return `x @ weight.T`; for few rows in blocks of the weight that need no copy, in a third of the time."""
    rows, inner = x.shape
    block = _BLOCK if rows * inner <= _NARROW_ABOVE else _NARROW_BLOCK
    if rows > _FEW_ROWS or len(weight) % block:
        plain: Rows = x @ weight.T
        return plain
    parts = np.matmul(x, weight.reshape(-1, block, inner).transpose(0, 2, 1))
    product: Rows = parts.transpose(1, 0, 2).reshape(rows, len(weight))
    return product


def gelu(x: Rows) -> Rows:
    """Return x Phi(x), Phi being the cumulative normal distribution (Hendrycks and Gimpel 2016)."""
    phi: Rows = np.float32(0.5) * (1 + _erf(x * np.float32(0.5**0.5)))
    return x * phi


def gelu_tanh(x: Rows) -> Rows:
    """Return the approximation of `gelu` by tanh, with which SigLIP 2 was trained."""
    inner = np.float32((2 / np.pi) ** 0.5) * (x + np.float32(0.044715) * x * x * x)
    approximated: Rows = np.float32(0.5) * x * (1 + np.tanh(inner))
    return approximated


def quick_gelu(x: Rows) -> Rows:
    """Return x sigmoid(1.702 x), with which OpenAI's CLIP was trained."""
    sigmoid: Rows = 1 / (1 + np.exp(np.clip(np.float32(-1.702) * x, -80, 80)))
    return x * sigmoid


ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu}

# A ratio of polynomials in x^2 for |x| <= 4, from the highest power down; good to a few units of the last place. As in
# Eigen's `generic_fast_erf_float`.
_ERF_ABOVE: tuple[float, ...] = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_BELOW: tuple[float, ...] = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


def _erf(x: Rows) -> Rows:
    x = np.clip(x, -4, 4)
    square = x * x
    return x * _polynomial(square, _ERF_ABOVE) / _polynomial(square, _ERF_BELOW)


def _polynomial(x: Rows, coefficients: Sequence[float]) -> Rows:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= x
        value += np.float32(coefficient)
    return value


def _mean(x: Rows) -> Rows:
    mean: Rows = x.mean(axis=0)
    return mean


@cache
def _causal_mask(tokens: int) -> Rows:
    return np.triu(np.full((tokens, tokens), -np.inf, dtype=np.float32), 1)


def _check(made: Architecture, weights: Mapping[str, Rows]) -> None:
    if any(name not in weights or weights[name].ndim != 2 for name in ("tokens", "0.up.weight")):
        raise TowerError("the weights of the text tower lack the table of tokens or the first layer")
    if made.layers > len(weights):
        raise TowerError(f"a text tower of {len(weights)} weights cannot have {made.layers} layers")
    width, hidden = weights["tokens"].shape[1], weights["0.up.weight"].shape[0]
    if not made.heads or width % made.heads:
        raise TowerError(f"a text tower of width {width} cannot have {made.heads} heads")
    shapes = _shapes(made, weights, width, hidden)
    if missing := sorted(shapes.keys() ^ weights.keys()):
        raise TowerError(f"the text tower should and does not have, or has unasked, the weights {missing[:3]}")
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise TowerError(f"the weight {name!r} of the text tower is {weights[name].shape} and not {shape}")


def _shapes(made: Architecture, weights: Mapping[str, Rows], width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Return the shape that each weight must have; optional ones are those that are there."""
    shapes: dict[str, tuple[int, ...]] = {"tokens": weights["tokens"].shape}
    shapes["positions"] = (len(weights.get("positions", ())), width)
    linear = {"qkv": (3 * width, width), "out": (width, width), "up": (hidden, width), "down": (width, hidden)}
    for layer in range(made.layers):
        for name, shape in linear.items():
            shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
        for name in ("norm1", "norm2"):
            shapes |= {f"{layer}.{name}.{part}": (width,) for part in ("weight", "bias")}
    outer = "final_norm" if made.norm == "before" else "embedding_norm"
    shapes |= {f"{outer}.{part}": (width,) for part in ("weight", "bias")}
    if made.pooling == "centred_mean":
        shapes["centroid"] = (width,)
        if "map.weight" in weights:
            shapes["map.weight"] = (width, width)
    inner = width
    for name in ("hidden_projection", "projection"):
        if f"{name}.weight" in weights:
            outputs = made.dim if name == "projection" else len(weights[f"{name}.weight"])
            shapes[f"{name}.weight"] = (outputs, inner)
            shapes |= {f"{name}.bias": (outputs,)} if f"{name}.bias" in weights else {}
            inner = outputs
    if inner != made.dim:
        raise TowerError(f"the text tower gives {inner} values a text and should give {made.dim}")
    return shapes
