"""The forward pass of `lite`'s image tower in NumPy: EfficientNet-Lite and the head that mixes class vectors.

Images are (H, W, channels). A convolution of one pixel is a matrix product, a depthwise one a sum over the shifts of
its kernel (Tan and Le 2019; batch norms are folded into the convolutions before them). One image takes 35 ms of a core.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..errors import TowerError

Array = NDArray[np.float32]

_STEM_KERNEL, _STEM_STRIDE = 3, 2
_MOST_KERNEL, _MOST_STRIDE = 15, 8
# OpenBLAS computes a product of so few multiplications on one thread. Two would gain little on one image, and on a busy
# machine wait for each other: 1 s an image where one thread takes 0.15.
_ONE_THREAD = 1 << 18
_FEW_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class ConvArchitecture:
    """What an image tower computes with its weights.

    Attributes:
        dim: Length of the vectors.
        strides: Of the depthwise convolution of each block.
        taps: Blocks whose output the residual layer sees too, by mean and maximum of each channel.
        temperature: What the logits of the classes are divided by.
    """

    dim: int
    strides: tuple[int, ...]
    taps: tuple[int, ...]
    temperature: float


class ConvNet:
    """An image tower: weights and what to compute with them. Safe from many threads."""

    def __init__(self, architecture: ConvArchitecture, weights: Mapping[str, Array]) -> None:
        """Check that the weights fit; they may be mapped from a file.

        Raises:
            TowerError: A weight is missing, is of another shape, or is not known.
        """
        self._made = architecture
        self._weights = dict(weights)
        _check(architecture, self._weights)

    def encode(self, pixels: Array) -> Array:
        """Return (dim,) float32 of unit length for one image (3, H, W)."""
        weights, made = self._weights, self._made
        x = _relu6(self._stem(pixels))
        taps: list[Array] = []
        for block, stride in enumerate(made.strides):
            x = self._block(x, block, stride)
            if block in made.taps:
                taps += [x.mean((0, 1)), x.max((0, 1))]
        features: Array = _relu6(self._pointwise(x, "head")).mean((0, 1))
        shares = _softmax((features @ weights["classifier.weight"] + weights["classifier.bias"]) / made.temperature)
        vector: Array = shares @ weights["class_vectors"]
        if "residual.weight" in weights:
            seen = np.concatenate([features, *taps])
            if "seen.mean" in weights:
                seen = (seen - weights["seen.mean"]) * weights["seen.scale"]
            np.add(vector, seen @ weights["residual.weight"], out=vector)
        length = max(float(np.sqrt(vector @ vector)), 1e-12)
        return np.asarray(vector / np.float32(length), dtype=np.float32)

    def _stem(self, pixels: Array) -> Array:
        padded = _padded(pixels.transpose(1, 2, 0), _STEM_KERNEL, _STEM_STRIDE)
        windows = sliding_window_view(padded, (_STEM_KERNEL, _STEM_KERNEL), (0, 1))[::_STEM_STRIDE, ::_STEM_STRIDE]
        height, width = windows.shape[:2]
        columns = np.ascontiguousarray(windows).reshape(height * width, -1)
        return self._pointwise(columns.reshape(height, width, -1), "stem")

    def _block(self, x: Array, block: int, stride: int) -> Array:
        y = x
        if f"{block}.expand.weight" in self._weights:
            y = _relu6(self._pointwise(y, f"{block}.expand"))
        y = _relu6(self._depthwise(y, f"{block}.depthwise", stride))
        y = self._pointwise(y, f"{block}.project")
        if stride == 1 and y.shape == x.shape:
            y += x
        return y

    def _pointwise(self, x: Array, name: str) -> Array:
        y = _product(x.reshape(-1, x.shape[2]), self._weights[f"{name}.weight"])
        y += self._weights[f"{name}.bias"]
        return y.reshape(*x.shape[:2], -1)

    def _depthwise(self, x: Array, name: str, stride: int) -> Array:
        weight = self._weights[f"{name}.weight"]
        kernel = len(weight)
        height, width = (-(-side // stride) for side in x.shape[:2])
        padded = _padded(x, kernel, stride)
        y = np.empty((height, width, x.shape[2]), dtype=np.float32)
        y[:] = self._weights[f"{name}.bias"]
        product = np.empty_like(y)
        for down in range(kernel):
            rows = padded[down : down + (height - 1) * stride + 1 : stride]
            for right in range(kernel):
                np.multiply(rows[:, right : right + (width - 1) * stride + 1 : stride], weight[down, right], product)
                y += product
        return y


def _padded(x: Array, kernel: int, stride: int) -> Array:
    """Return (H, W, channels) with zeros around, as TensorFlow's `SAME` has it: the odd one below and to the right."""
    total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[:2]]
    (top, left), (down, across) = [extra // 2 for extra in total], total
    padded = np.zeros((x.shape[0] + down, x.shape[1] + across, x.shape[2]), dtype=np.float32)
    padded[top : top + x.shape[0], left : left + x.shape[1]] = x
    return padded


def _product(x: Array, weight: Array) -> Array:
    """Return `x @ weight`, in blocks that one thread computes."""
    (rows, inner), outputs = x.shape, weight.shape[1]
    most = max(_FEW_ROWS, _ONE_THREAD // (inner * outputs))
    block = next(count for count in range(min(most, rows), 0, -1) if rows % count == 0)
    step = max(1, _ONE_THREAD // (block * inner))
    blocks = x.reshape(-1, block, inner)
    y = np.empty((len(blocks), block, outputs), dtype=np.float32)
    for start in range(0, outputs, step):
        y[:, :, start : start + step] = blocks @ weight[:, start : start + step]
    return y.reshape(rows, outputs)


def _relu6(x: Array) -> Array:
    np.maximum(x, np.float32(0), out=x)
    np.minimum(x, np.float32(6), out=x)
    return x


def _softmax(x: Array) -> Array:
    weights = np.exp(x - x.max())
    shares: Array = weights / weights.sum()
    return shares


def _check(made: ConvArchitecture, weights: Mapping[str, Array]) -> None:
    expected = {}
    try:
        for name, shape in _shapes(made, weights):
            expected[name] = shape
            if weights[name].shape != shape:
                raise TowerError(f"the weight {name!r} of the image tower is {weights[name].shape} and not {shape}")
    except (KeyError, IndexError) as error:
        raise TowerError(f"the image tower lacks the weight {error}, or it has no such shape") from error
    if unknown := sorted(weights.keys() - expected.keys()):
        raise TowerError(f"the image tower has the weights {unknown[:3]}, which are not known")
    if not made.temperature > 0 or not all(1 <= stride <= _MOST_STRIDE for stride in made.strides):
        raise TowerError(f"the image tower has temperature {made.temperature} and strides {made.strides}")


def _shapes(made: ConvArchitecture, weights: Mapping[str, Array]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield each weight with the shape that it must have, in the order of the computation."""

    def pointwise(name: str, inputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        outputs = weights[f"{name}.weight"].shape[1]
        yield f"{name}.weight", (inputs, outputs)
        yield f"{name}.bias", (outputs,)

    yield from pointwise("stem", 3 * _STEM_KERNEL**2)
    width = weights["stem.weight"].shape[1]
    seen = 0
    for block in range(len(made.strides)):
        if f"{block}.expand.weight" in weights:
            yield from pointwise(f"{block}.expand", width)
            width = weights[f"{block}.expand.weight"].shape[1]
        kernel = min(len(weights[f"{block}.depthwise.weight"]), _MOST_KERNEL)
        yield f"{block}.depthwise.weight", (kernel, kernel, width)
        yield f"{block}.depthwise.bias", (width,)
        yield from pointwise(f"{block}.project", width)
        width = weights[f"{block}.project.weight"].shape[1]
        seen += 2 * width * (block in made.taps)
    yield from pointwise("head", width)
    features = weights["head.weight"].shape[1]
    yield from pointwise("classifier", features)
    yield "class_vectors", (weights["classifier.weight"].shape[1], made.dim)
    if "residual.weight" in weights:
        yield "residual.weight", (features + seen, made.dim)
        for name in ("seen.mean", "seen.scale"):
            if name in weights:
                yield name, (features + seen,)
