#!/usr/bin/env bash
# The main job on a fresh machine: scripts/demo.sh [ARCHIVE]
# Without a path it makes a synthetic chest archive, in which some cases are spoiled on purpose; with one
# it runs on that archive. Exit code 8, some cases refused, is no failure of the demo.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

out=${TOOLKIT_DEMO:-$root/demo}
mkdir -p "$out"
if [ $# -gt 0 ]; then
    archive=$1
else
    archive=$out/archive
    toolkit phantom "$archive" --patients 21 --seed 0 --spoil
    echo "what is spoiled, and what must become of it: $archive/spoiled/expected.csv" >&2
fi

echo "== what the archive holds" >&2
toolkit index "$archive" --out "$out/cases.csv" --force || [ $? -eq 8 ]
echo "== nodules to a store" >&2
toolkit preprocess "$archive" "$out/store" || [ $? -eq 8 ]
echo "== a page that shows it" >&2
toolkit inspect "$out/store"
echo "== every byte of the store" >&2
toolkit verify "$out/store"
echo "== the first lines of $out/store/nodules.csv" >&2
head -n 6 "$out/store/nodules.csv"
