#!/usr/bin/env bash
# The networks and scorers that bench/ablations.py compares.  Needs the shared data, the indexed benchmark KB and
# the folds of scripts/train_embedded.py; takes about an hour on two cores.  What stands there is not made again.
#   scripts/train_ablations.sh SHARED FOLDS
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
shared=${1:?the folder that holds data/mel} folds=${2:?the folder that holds fold-0}
data=$shared/data/mel runs=runs/ablations
kb=$(python -c 'from localmel.kb.locate import kb_folder; print(kb_folder("mel-benchmark"))')
bare=$kb-no-triples

train() { localmel train "$data" --drop-leaked "$@"; }
fit() {
    local out=$1
    shift
    [ -d "$out" ] || python scripts/fit_evidence_scorer.py --data "$data" --only 0 --out "$out" "$@"
}

[ -d "$bare" ] || localmel kb build mel-benchmark-no-triples --entities "$data/kb/entities.jsonl.gz"

train --kb "$bare" --out $runs/no-triples/full
train --kb "$bare" --out $runs/no-triples/fold-0 --fold 0/3
fit $runs/no-triples/scorer --kb "$bare" --folds $runs/no-triples

train --kb "$kb" --out $runs/no-gate/full --without gate
train --kb "$kb" --out $runs/no-gate/fold-0 --without gate --fold 0/3
fit $runs/no-gate/scorer --kb "$kb" --folds $runs/no-gate

fit $runs/third/scorer --kb "$kb" --folds "$folds"
fit $runs/no-names/scorer --kb "$kb" --folds "$folds" --without names
fit $runs/no-counts/scorer --kb "$kb" --folds "$folds" --without counts
