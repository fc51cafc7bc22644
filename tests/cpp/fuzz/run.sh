#!/usr/bin/env bash
# Builds the fuzz harnesses with clang and runs each for SECONDS: run.sh ONNXRUNTIME_ROOT SECONDS [BUILD]
set -euo pipefail
repository=$(cd "$(dirname "$0")/../../.." && pwd)
root=$1 seconds=$2 build=${3:-$repository/build/fuzz}
cmake -S "$repository" -B "$build" -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DONNXRUNTIME_ROOT="$root" \
    -DRISENGINE_BUILD_FUZZERS=ON -DRISENGINE_SANITIZE=fuzzer-no-link,address,undefined >/dev/null
cmake --build "$build" --target fuzz_manifest fuzz_tokenizer fuzz_text
bundle=$repository/engine/risengine/bundles/tabletop

# Seeds: the bundle's own manifest, and its tokenizer cut to the letters and a few merges, so that a run takes no second.
mkdir -p "$build"/corpus/{manifest,tokenizer,text}
cp "$bundle/manifest.json" "$build/corpus/manifest/"
python3 - "$bundle/tokenizer.json" "$build/corpus" <<'PYTHON'
import json, pathlib, sys

content, corpus = json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[2])
model = content["model"]
model["merges"] = model["merges"][:20]
model["vocab"] = {piece: token for piece, token in model["vocab"].items() if token < 540}
(corpus / "tokenizer" / "short.json").write_text(json.dumps(content, ensure_ascii=False))
for name, text in {"plain": "the red mug left of the box", "marks": "İstanbul’s ΟΔΟΣ, “ﬁne” e\u0301 日本 🥤"}.items():
    (corpus / "text" / name).write_text(text)
PYTHON
for name in manifest tokenizer text; do
    "$build/tests/cpp/fuzz_$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 \
        -artifact_prefix="$build/$name-" "$build/corpus/$name"
done
