#!/bin/sh
# Starts the long training run behind all other work, or goes on with it: sh scripts/train.sh [minutes [options of train]].
# What it reads and writes is in docs/training.md; it prints the process id. NEMOSTREAM_TRAIN and SHARED say where the run
# and the data lie.
set -eu
cd "$(dirname "$0")/.."
run=${NEMOSTREAM_TRAIN:-$HOME/.cache/nemostream-train}
shared=$(cd "${SHARED:-../shared}" && pwd)
python=$PWD/.venv/bin/python

data=$shared/corpus_en
for folder in "$run"/flite* "$run"/hibari* "$run"/joe* "$run"/kokoro*; do
    ! ls "$folder"/*[0-9].jsonl >/dev/null 2>&1 || data="$data $folder"
done

minutes=${1:-100000}
[ $# -eq 0 ] || shift

mkdir -p "$run/run"
cd plugin
# Memory that a step gives back is kept for the next (glibc 2.35 and newer): to ask for it again is a tenth of the time.
export MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=200000000
# Two processes of a thread each hear more than one of two threads (PROCESSES=1: on a GPU). The kernel shares the cores
# between sessions first: the run is behind all other work only if its session is nice too.
export OMP_NUM_THREADS=1
# shellcheck disable=SC2016,SC2086
setsid sh -c '{ echo 19 >/proc/self/autogroup; } 2>/dev/null; exec nice -n 19 "$@"' train \
    "$python" -m torch.distributed.run --standalone --nproc-per-node "${PROCESSES:-2}" \
    -m train --threads 1 --init train/next.nemo --data $data \
    --held-out "$shared/corpus_en_heldout" "$shared/data/sentences_en_heldout.txt" "$shared/data/public_test_en" \
    --test "$shared/corpus_en_heldout" --out "$run/run" --minutes "$minutes" "$@" >>"$run/log.txt" 2>&1 </dev/null &
echo $!
