#!/usr/bin/env bash
# On the machine with the GPU: unpack the packages that prepare.sh brought in `.gpu/`, then run the steps.
# bash benchmarks/gpu/on_gpu.sh [options of run.py]
set -u
home=$(cd "$(dirname "$0")/../.." && pwd)
site=${GPU_SITE:-${TMPDIR:-/tmp}/gpu-site}
python=${PYTHON:-python3}
packages=$home/.gpu/site.tar.xz
[ -f "$packages" ] || { echo "error: there is no $packages; run benchmarks/gpu/prepare.sh where there is a network"; exit 1; }
if [ ! -f "$site/.ready" ]; then
    rm -rf "$site" && mkdir -p "$site"
    "$python" -c "import shutil,sys; shutil.unpack_archive(sys.argv[1], sys.argv[2], filter='data')" "$packages" "$site" && touch "$site/.ready" \
        || { echo "error: $packages cannot be unpacked into $site; is the disk full, or the copy cut short?"; exit 1; }
fi
export PYTHONPATH="$site" PYTHONDONTWRITEBYTECODE=1
exec "$python" "$home/benchmarks/gpu/run.py" "$@"
