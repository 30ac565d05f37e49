"""Where a film changes its scene, on small frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from encoders.formats.scenes import Scenes

Frames = list[NDArray[np.int16]]


def texture(seed: int, shade: int) -> NDArray[np.int16]:
    noise = np.random.default_rng(seed).integers(-60, 60, (18, 32, 3))
    return np.clip(noise + shade, 0, 255).astype(np.int16)


def begins(frames: Frames, fps: float = 10) -> list[float]:
    scenes = Scenes()
    return [number / fps for number, frame in enumerate(frames) if scenes.begins(frame, number / fps)]


def test_a_cut_begins_a_scene() -> None:
    frames = [texture(1, 60)] * 20 + [texture(2, 180)] * 20 + [texture(1, 60)] * 20
    assert begins(frames) == [0, 2, 4]


def test_a_camera_that_turns_stays_in_its_scene() -> None:
    wide = texture(3, 120)
    assert begins([np.roll(wide, number, axis=1) for number in range(100)]) == [0]


def test_a_slow_change_begins_a_scene_when_it_has_gone_far() -> None:
    dark, light = texture(1, 40), texture(2, 200)
    fade = [(dark + (light - dark) * (number / 80)).astype(np.int16) for number in range(81)]
    assert 2 <= len(begins(fade)) <= 4
