#!/usr/bin/env bash
# The main job on a fresh machine: scripts/demo.sh [ARCHIVE]
# From an archive to a trained, calibrated and evaluated classifier and a report. Without a path it makes a
# synthetic chest archive, in which some cases are spoiled on purpose; with one it runs on that archive, and
# stops before training where there are no labels. Exit code 8, some cases refused, is no failure of the demo.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

out=${TOOLKIT_DEMO:-$root/demo}
mkdir -p "$out"
crops=()
if [ $# -gt 0 ]; then
    archive=$1
else
    archive=$out/archive
    # 0.75 mm: at 1.5 mm the spicules are gone, and with them half of what tells the nodules apart
    crops=(--spacing 0.75 --size 32)
    toolkit phantom "$archive" --patients "${TOOLKIT_DEMO_PATIENTS:-800}" --seed 0 --spoil --workers 2
    echo "what is spoiled, and what must become of it: $archive/spoiled/expected.csv" >&2
fi

echo "== what the archive holds" >&2
toolkit index "$archive" --out "$out/cases.csv" --force || [ $? -eq 8 ]
echo "== nodules to a store" >&2
toolkit preprocess "$archive" "$out/store" "${crops[@]}" || [ $? -eq 8 ]
echo "== a page that shows it" >&2
toolkit inspect "$out/store"
echo "== every byte of the store" >&2
toolkit verify "$out/store"
echo "== the first lines of $out/store/nodules.csv" >&2
head -n 6 "$out/store/nodules.csv"

# label is the fifth column; 0.5 and more is malignant
read -r benign malignant < <(awk -F, 'NR > 1 && $5 != "" { n[$5 >= 0.5]++ } END { print n[0] + 0, n[1] + 0 }' \
    "$out/store/nodules.csv")
if [ "$benign" -eq 0 ] || [ "$malignant" -eq 0 ]; then
    echo "== no training: of the store's nodules $benign are labelled benign and $malignant malignant, and both" >&2
    echo "   are needed. Name labels in $archive/labels.csv (case_id, label; README, 'Labels') and run again." >&2
    exit 0
fi
echo "== training on $benign benign and $malignant malignant nodules" >&2
code=0
toolkit train "$out/store" "$out/run" --config "$(dirname "${BASH_SOURCE[0]}")/demo.toml" --verbose || code=$?
if [ "$code" -eq 2 ]; then
    echo "== no training on this archive, for the reason above; the store is complete" >&2
    exit 0
fi
[ "$code" -eq 0 ] || exit "$code"
echo "== the test side, once" >&2
toolkit evaluate "$out/run" || [ $? -eq 2 ] # too few nodules for an evaluation: the page says so
echo "== what it all means" >&2
toolkit report "$out/run"
