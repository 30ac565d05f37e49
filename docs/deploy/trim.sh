#!/bin/sh
# Takes out of a virtual environment what a search and a server never load: of pyarrow the headers, Flight and S3; the tests
# of all packages; the client of a model hub that `tokenizers` brings along; pip itself. Then compiles what they load, since
# the environment may be read-only from here on.
#   sh docs/deploy/trim.sh VENV
set -eu
venv=$1
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rm -rf "$site"/pyarrow/include "$site"/pyarrow/src
find "$site"/pyarrow \( -name 'libarrow*.so' -o -name 'libarrow*.so.*.*.*' \) -delete  # copies for who links against them
rm -f "$site"/pyarrow/libarrow_flight* "$site"/pyarrow/_flight* "$site"/pyarrow/libarrow_s3* "$site"/pyarrow/_s3fs*
for package in hf_xet huggingface_hub setuptools pip; do
  "$venv/bin/python" -m pip uninstall --yes --quiet "$package" 2>/dev/null || true
done
find "$site" -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} +
"$venv/bin/python" -c 'import searcher.client, searcher.searcher, storage.ann, twinlens.commands.search, twinlens.console'
"$venv/bin/python" -c 'import searcher.server.app, twinlens.commands.serve' 2>/dev/null || true
