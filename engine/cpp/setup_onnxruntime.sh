#!/usr/bin/env bash
# Makes a folder for -DONNXRUNTIME_ROOT: the C++ headers that Debian 13 packages, and the library of a Python
# environment's onnxruntime wheel. The headers may be older than the library: ONNX Runtime keeps old interfaces.
# Usage: setup_onnxruntime.sh PYTHON FOLDER
set -euo pipefail
python=$1 root=$2

package=libonnxruntime-dev_1.21.0%2bdfsg-1_amd64.deb
url=${RISENGINE_ONNXRUNTIME_HEADERS:-http://deb.debian.org/debian/pool/main/o/onnxruntime/$package}
sha256=14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08

library=$("$python" - <<'PYTHON'
import glob, importlib.util, os

spec = importlib.util.find_spec("onnxruntime")
found = [] if spec is None else glob.glob(os.path.join(os.path.dirname(spec.origin), "capi", "libonnxruntime.so*"))
print(found[0] if found else "")
PYTHON
)
[ -n "$library" ] || { echo "$python has no onnxruntime wheel with libonnxruntime.so: pip install onnxruntime" >&2; exit 1; }

if [ ! -f "$root/include/onnxruntime_cxx_api.h" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # Only the headers are taken from it, which are the same for every architecture.
    "$python" -c 'import sys, urllib.request; urllib.request.urlretrieve(sys.argv[1], sys.argv[2])' "$url" "$work/headers.deb" ||
        { echo "$url cannot be fetched. Set ONNXRUNTIME_ROOT to an official release archive instead." >&2; exit 1; }
    echo "$sha256  $work/headers.deb" | sha256sum --check --quiet
    dpkg-deb -x "$work/headers.deb" "$work/files"
    mkdir -p "$root/include"
    cp "$(dirname "$(find "$work/files" -name onnxruntime_cxx_api.h)")"/*.h "$root/include/"
fi
mkdir -p "$root/lib"
ln -sf "$library" "$root/lib/libonnxruntime.so"
ln -sf "$library" "$root/lib/libonnxruntime.so.1"
