#!/bin/sh
# The gallery's search beside other libraries' on this machine, one after another: `.ci/bench-index.sh [SIZES] [LIBRARIES]`.
# The others are run by the shared peer's idx.py, which draws the same kind of gallery; where it or its Python packages are not there,
# that half is SKIPPED. PEER_PYTHON names a Python that has them (psutil numpy faiss-cpu hnswlib).
set -eu
cd "$(dirname "$0")/.."
sizes=${1:-1000,10000,100000}
libraries=${2:-flat,hnswlib}
python=${PEER_PYTHON:-python3}
peer=${FACEID_SHARED:-../shared}/peer/idx.py
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
./target/release/faceid bench search --sizes "$sizes" --json >"$out/ours.json"
if [ -f "$peer" ] && "$python" -c 'import psutil, numpy, faiss, hnswlib' 2>/dev/null; then
    "$python" "$peer" --sizes "$sizes" --libs "$libraries" >"$out/peer.jsonl"
else
    echo "SKIPPED: no peer ($peer with $python: psutil, numpy, faiss-cpu, hnswlib)" >&2
    : >"$out/peer.jsonl"
fi
command -v python3 >/dev/null || { cat "$out/ours.json"; exit 0; }
python3 - "$out" <<'PY'
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
keys = ("lib", "n", "min_us", "p50_us", "p99_us", "recall1", "id1", "mem_mb", "build_s")
# The peers are asked for the nearest row; a decision asks for two people, so that it knows what is ambiguous.
ours = [
    {"lib": f"{row['name']} top {people}", "n": row["n"], **{key: row[prefix + key] for key in ("min_us", "p50_us", "p99_us")},
     "recall1": row["recall_at_1"], "id1": row["right_person"], "mem_mb": row["memory_mb"], "build_s": row["build_s"]}
    for row in json.loads((out / "ours.json").read_text())["rows"]
    for people, prefix in ((1, "top1_"), (2, ""))
]
peers = [json.loads(line) for line in (out / "peer.jsonl").read_text().splitlines() if line.strip()]
print(" ".join(f"{key:>15}" for key in keys))
for row in sorted(ours + peers, key=lambda row: int(row["n"])):
    print(" ".join(f"{str(row.get(key, row.get('error', '-') if key == 'p50_us' else '-')):>15}" for key in keys))
PY
