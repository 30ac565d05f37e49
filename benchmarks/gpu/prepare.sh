#!/usr/bin/env bash
# In the root of a checkout, on a machine with a package index: make .gpu/ with all that a machine with a GPU and without
# a network lacks. Nothing of it is tracked.
#   bash benchmarks/gpu/prepare.sh [FOLDER OF REAL DATA]      the folder is ../shared/data unless named
set -euo pipefail
data=${1:-../shared/data}
python=${PYTHON:-python3}
[ -f benchmarks/gpu/run.py ] && [ -f pyproject.toml ] || { echo "error: this is not the root of a checkout; go there and run it again"; exit 1; }
[ -d "$data/coco_cc" ] || { echo "error: there is no $data/coco_cc; name the folder of real data"; exit 1; }
exclude=$(git rev-parse --git-path info/exclude)
mkdir -p "$(dirname "$exclude")"
grep -qx '/.gpu/' "$exclude" 2>/dev/null || echo '/.gpu/' >> "$exclude"
rm -rf .gpu && mkdir -p .gpu

# What an image with torch, transformers and timm lacks, for Python 3.12, in the versions that the project is tested with.
packages=(open_clip_torch==3.3.0 ftfy==6.3.1 wcwidth==0.9.4 duckdb==2.0.1 faiss-cpu==1.15.1 click==8.5.1 fsspec==2026.9.0 jinja2==3.1.6 rich==15.0.0)
platforms=(manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 manylinux1_x86_64)
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
"$python" -m pip install --quiet --no-deps --no-compile --only-binary=:all: --python-version 3.12 --implementation cp \
    $(printf -- '--platform %s ' "${platforms[@]}") --target "$site/site" "${packages[@]}"
rm -rf "$site/site/bin"
echo "packing, about a minute"
"$python" -c "import shutil,sys; shutil.make_archive(sys.argv[2], 'xztar', sys.argv[1])" "$site/site" .gpu/site
"$python" benchmarks/gpu/photographs.py "$data" .gpu/photographs

kib=$(( $(du -sk --apparent-size .gpu | cut -f1) + $(git ls-files -z --cached --others --exclude-standard | du -ck --apparent-size --files0-from=- | tail -1 | cut -f1) ))
cat <<SAY
.gpu/ and the project's files are $(( kib / 1024 )) MiB. Copy both, and there:
  bash benchmarks/gpu/on_gpu.sh --limit 480 --without vectors_10m
Then, after mending what failed, with what time is left:
  bash benchmarks/gpu/on_gpu.sh --limit 130 --only machine STEPS THAT FAILED
SAY
