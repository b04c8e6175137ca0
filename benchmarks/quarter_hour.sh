#!/bin/bash
# What a GPU lent for a quarter of an hour is for, in numbered steps, each with its own limit and its result at once:
#
#   1 set-up: parts of the pack joined, hashes, versions      4 13B shape, a module of rank 512: xalma, Trainer
#   2 the tests for a GPU                                     5 the same at 2,048 tokens, and compiled
#   3 profile real: ladder, comparisons, whole devtest
#   probe: a minute of step 3, to see how fast it is
#   parts: before all that, here: the folder PACK in pieces that can travel
#
#   OUT=folder benchmarks/quarter_hour.sh 1 2 3
#
# Parts lie in .dev/p1, .dev/p2, …: as many as have come are kept in LENT. SCALE, WORKERS, SECONDS_REAL, SETS and LIMIT_n
# change a step; SMALL=1 is the rehearsal on a CPU. XALMA_COMMIT names the commit that was sent, where the copy's own history
# is older. Wheels that a machine lacks come in .whl/: babel, datasets, dill, gguf, multiprocess, py3langid, trl.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
OUT=${OUT:?name the folder for results} LENT=${LENT:-/tmp/xalma-lent} PY=${PYTHON:-python3}
mkdir -p "$OUT" "$LENT/parts" "$LENT/site"
export PYTHONUNBUFFERED=1 TQDM_DISABLE=1 HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export PYTHONPATH="$PWD:$LENT/site${PYTHONPATH:+:$PYTHONPATH}"

step() { # name, seconds it may take, command …
  local name=$1 limit=$2 started=$SECONDS rc
  shift 2
  timeout -k 5 "$limit" "$@"
  rc=$?
  echo "{\"step\": \"$name\", \"seconds\": $((SECONDS - started)), \"rc\": $rc}" | tee -a "$OUT/steps.jsonl"
}

setup() {
  if compgen -G ".whl/*.whl" >/dev/null && [ -z "$(ls "$LENT/site")" ]; then
    local pip="$PY -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target $LENT/site"
    $pip .whl/*.whl || for wheel in .whl/*.whl; do $pip "$wheel"; done # what fits, where one does not
  fi
  cp -n .dev/p*/* "$LENT/parts/" 2>/dev/null
  if [ -f "$LENT/parts/SHA256" ] && [ "$(ls "$LENT/parts" | grep -c '^part')" = "$(cat "$LENT/parts/COUNT")" ] && [ ! -f "$LENT/pack/index.json" ]; then
    mkdir -p "$LENT/pack"
    cat "$LENT"/parts/part* | tar -x -C "$LENT/pack" || return 1
  fi
  if [ -f "$LENT/pack/index.json" ]; then (cd "$LENT/pack" && sha256sum -c "$LENT/parts/SHA256") || return 1; fi
  $PY - <<'P'
import torch, transformers, peft, sys
print(sys.version.split()[0], torch.__version__, transformers.__version__, peft.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
import xalma.realtasks, xalma.realbase
P
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || true
}
export -f setup
export OUT LENT PY

real() { # scale, workers, seconds, further arguments
  local scale=$1 workers=$2 seconds=$3
  shift 3
  $PY -m xalma.realbase --profile real --pack "$LENT/pack" --out "$OUT" --work "$LENT/work-$scale" --scale "$scale" \
    --workers "$workers" --seconds "$seconds" "$@"
}
export -f real

summary() {
  $PY - "$OUT/log.jsonl" <<'P'
import json, sys
for line in open(sys.argv[1]):
    one = json.loads(line)
    one.pop("log", None)
    if one["event"] == "run":
        continue
    one["trace"] = one.get("trace", "")[-600:]
    print(json.dumps({k: v for k, v in one.items() if v not in ("", None)}))
P
}
export -f summary

train() { # output, further arguments of benchmarks/training_throughput.py
  local file=$1
  shift
  if [ -n "${SMALL:-}" ]; then set -- "$@" --shapes tiny --steps 1 --warmup 1 --batch 2 --micro 2 --rows packed:64; fi
  $PY benchmarks/training_throughput.py --out "$OUT/$file" --repeats 1 --threads 4 "$@"
}
export -f train

parts() { # the pack in .dev/p1, .dev/p2, … of at most PART bytes each, with hashes
  rm -rf .dev/p[0-9]* && mkdir -p .dev/p1
  tar -c --sort=name --mtime=@0 -C "$PACK" . | split -b "${PART:-41M}" -d - .dev/part
  local n=0 file
  for file in .dev/part*; do
    n=$((n + 1))
    mkdir -p ".dev/p$n" && mv "$file" ".dev/p$n/"
  done
  (cd "$PACK" && sha256sum -- *) >.dev/p1/SHA256
  echo "$n" >.dev/p1/COUNT
  du -sm .dev/p*
}
export -f parts

read -ra MORE <<<"${SETS:-}"
for number in "$@"; do
  case $number in
    parts) PACK=${PACK:?the folder of the pack} parts ;;
    1) step setup "${LIMIT_1:-90}" bash -c setup ;;
    2) step test-gpu "${LIMIT_2:-90}" bash -c '$PY -m pytest -q -x --maxfail=20 -p no:cacheprovider -n 8 -m gpu ${TESTS:-tests/test_gpu.py tests/test_realbase.py} 2>&1 | tail -60 | tee "$OUT/test_gpu.txt"' ;;
    3) step real "${LIMIT_3:-545}" bash -c 'real "$@"' - "${SCALE:-1}" "${WORKERS:-3}" "${SECONDS_REAL:-505}" "${MORE[@]}"
       summary | tail -n 12 ;;
    probe) step probe "${LIMIT_P:-100}" bash -c 'real "$@"' - "${SCALE:-0.06}" "${WORKERS:-3}" "${SECONDS_REAL:-60}" --only stage1,base,g6 "${MORE[@]}"
       summary ;;
    4) step 13b-512 "${LIMIT_4:-100}" bash -c 'train training_throughput_h100.json --shapes 13b --kinds adapter --rows packed:512 --systems xalma trainer --batch 16 --micro 8 --steps 3 --warmup 1 --gradient-checkpointing' ;;
    5) step 13b-2048 "${LIMIT_5:-120}" bash -c 'train training_throughput_h100_long.json --shapes 13b --kinds adapter --rows packed:2048 --systems xalma compiled --batch 4 --micro 2 --steps 3 --warmup 1 --gradient-checkpointing' ;;
    *) echo "no step $number" >&2; exit 2 ;;
  esac
done
exit 0
