"""Index the photographs that ship inside scikit-image and scikit-learn, search them, and leave a contact sheet."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
DEMO = HOME / "demo"
PHOTOGRAPHS = {
    "skimage": (
        "data/astronaut.png",
        "data/brick.png",
        "data/camera.png",
        "data/cell.png",
        "data/chelsea.png",
        "data/clock_motion.png",
        "data/coffee.png",
        "data/coins.png",
        "data/grass.png",
        "data/gravel.png",
        "data/hubble_deep_field.jpg",
        "data/ihc.png",
        "data/moon.png",
        "data/motorcycle_left.png",
        "data/page.png",
        "data/retina.jpg",
        "data/rocket.jpg",
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}
QUERIES = (
    "a cat with whiskers",
    "a cup of coffee on a table",
    "a rocket standing on its launch pad",
    "a parked motorcycle",
    "a Chinese temple",
    "a flower in bloom",
    "old coins",
    "an astronaut in a space suit",
    "a brick wall",
)


def main() -> None:
    photos = DEMO / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    for package, names in PHOTOGRAPHS.items():
        for name in names:
            shutil.copy(package_folder(package) / name, photos / Path(name).name)
    texts = [argument for query in QUERIES for argument in ("--text", query)]
    run("build-index", "demo/photos", "--out", "demo/photos.index", "--encoder", "lite")
    run(
        "twinlens",
        "search",
        "demo/photos.index",
        *texts,
        "-k",
        "3",
        "--contact-sheet",
        "demo/hits.png",
        "--gallery",
        "demo/hits.html",
    )
    print("\nLook at demo/hits.png, or open demo/hits.html in a browser.")


def package_folder(name: str) -> Path:
    # The package itself is not imported: its files are all that is wanted.
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        sys.exit(f"error: the photographs of {name!r} are absent; run `pip install '.[demo]'` in the project's folder")
    return Path(spec.origin).parent


def run(program: str, *arguments: str) -> None:
    print("\n$", program, *(f"'{word}'" if " " in word else word for word in arguments), flush=True)
    done = subprocess.run([str(Path(sys.executable).parent / program), *arguments], cwd=HOME, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
