#!/usr/bin/env bash
# The main job on a fresh machine: scripts/demo.sh [ARCHIVE]
# Without a path it makes a synthetic chest archive; with one it runs on that archive.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

out=${TOOLKIT_DEMO:-$root/demo}
mkdir -p "$out"
if [ $# -gt 0 ]; then
    archive=$1
    cases=()
else
    archive=$out/archive
    toolkit phantom "$archive" --patients 20 --seed 0
    cases=(--cases "$archive/cases.csv")
fi

echo "== what the archive holds" >&2
toolkit index "$archive" "${cases[@]}" --out "$out/cases.csv" --force || [ $? -eq 8 ]
echo "== nodules to a store" >&2
toolkit preprocess "$archive" "$out/store" "${cases[@]}" || [ $? -eq 8 ]
echo "== a page that shows it" >&2
toolkit inspect "$out/store"
echo "== every byte of the store" >&2
toolkit verify "$out/store"
echo "== the first lines of $out/store/nodules.csv" >&2
head -n 6 "$out/store/nodules.csv"
