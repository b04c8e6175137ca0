#!/bin/bash
# What a GPU lent for a quarter of an hour is for, in numbered steps, what matters most first. Each has a time limit of its
# own, writes what it has measured at once, and ends in a line of steps.jsonl: done, skipped, stopped (at its limit) or failed.
#
#   1 set-up: hashes, versions, what is missing       7 FP8's losses beside bfloat16's, on the real base
#   2 the tests for a GPU                              8 7B shape, full weights: xalma, Trainer (108 GB: an H200)
#   3 profile real: ladder, comparisons, devtest       9 ARPO at 7B's shape beside TRL's CPOTrainer
#   4 13B shape, a module of rank 512: xalma, Trainer  10 COMET's throughput
#   5 the same at 2,048 tokens                         11 decoding at 13B's shape with transformers 4.57
#   6 the same with the frozen base in FP8
#   probe: a minute of step 3.  Before all that, here: parts (the folder PACK in pieces that can travel), wheels
#
#   OUT=folder benchmarks/quarter_hour.sh 1 2 4 5 6
#
# BUDGET is the seconds for the whole call (a call may take 600); LIMIT_n, SCALE, WORKERS, SECONDS_REAL and SETS change a
# step. SMALL=1 is the rehearsal on a CPU. XALMA_COMMIT names the commit that was sent, where the copy's own history is
# older. At most 8 files come back from a call: run step 3 in one of its own. How, exactly: results/benchmarks/README.md.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
OUT=${OUT:?name the folder for results} LENT=${LENT:-/tmp/xalma-lent} PY=${PYTHON:-python3} SMALL=${SMALL:-}
DEV=${DEV:-.dev} WHEELS=${WHEELS:-.whl} BUDGET=${BUDGET:-570} LEAST=${LEAST:-10}
mkdir -p "$OUT" "$LENT/parts" "$LENT/site" "$LENT/site457"
export PYTHONUNBUFFERED=1 TQDM_DISABLE=1 HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export PYTHONPATH="$PWD:$LENT/site${PYTHONPATH:+:$PYTHONPATH}"
export OUT LENT PY SMALL DEV WHEELS
OUR_PACKAGES="babel datasets dill gguf ipadic mecab-python3 multiprocess py3langid sacrebleu trl"
OLD_PACKAGES="transformers tokenizers huggingface-hub unbabel-comet torchmetrics entmax jsonargparse setuptools"
export OUR_PACKAGES

step() { # name, seconds it may take, function and its arguments
  local name=$1 limit=$2 started=$SECONDS left=$((BUDGET - SECONDS)) log="$LENT/$1.log" rc=77 result
  shift 2
  if ((left < limit)); then limit=$left; fi
  if ((limit < LEAST)); then
    echo "skipped: no time is left of $BUDGET seconds" | tee "$log"
  else
    timeout -k 5 "$limit" bash -c '"$@"' - "$@" 2>&1 | tee "$log"
    rc=${PIPESTATUS[0]}
  fi
  case $rc in 0) result=done ;; 77) result=skipped ;; 124 | 137) result=stopped ;; *) result=failed ;; esac
  printf '{"step": "%s", "result": "%s", "rc": %d, "seconds": %d, "limit": %d, "last": "%s"}\n' "$name" "$result" "$rc" \
    $((SECONDS - started)) "$limit" "$(tail -n 1 "$log" | tr -d '"\\[:cntrl:]' | cut -c1-300)" | tee -a "$OUT/steps.jsonl"
}

skip() {
  echo "skipped: $*"
  exit 77
}

needs() { # packages
  local name
  for name in "$@"; do $PY -c "import $name" 2>/dev/null || skip "the package $name can't be imported there"; done
}

install() { # wheels into a folder, at once, or where one does not fit, what does
  local pip="$PY -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target $2" wheel
  if compgen -G "$1/*.whl" >/dev/null && [ -z "$(ls "$2")" ]; then
    $pip "$1"/*.whl || for wheel in "$1"/*.whl; do $pip "$wheel"; done
  fi
}

setup() {
  install "$WHEELS" "$LENT/site"
  install "${WHEELS}457" "$LENT/site457"
  cp -n "$DEV"/p*/* "$LENT/parts/" 2>/dev/null
  if [ -f "$LENT/parts/SHA256" ] && [ "$(ls "$LENT/parts" | grep -c '^part')" = "$(cat "$LENT/parts/COUNT")" ] && [ ! -f "$LENT/pack/index.json" ]; then
    mkdir -p "$LENT/pack"
    cat "$LENT"/parts/part* | tar -x -C "$LENT/pack" || return 1
  fi
  if [ -f "$LENT/pack/index.json" ]; then (cd "$LENT/pack" && sha256sum -c --quiet "$LENT/parts/SHA256") || return 1; fi
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null
  $PY - <<'P'
import importlib.util, os, sys, torch, transformers, peft
sys.path.insert(0, "benchmarks")
import real_base.tasks
module = {"mecab-python3": "MeCab"}
missing = [name for name in os.environ["OUR_PACKAGES"].split() if importlib.util.find_spec(module.get(name, name)) is None]
print("missing:", *missing or ["nothing"])
print(sys.version.split()[0], torch.__version__, transformers.__version__, peft.__version__,
      torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
P
}

tests() {
  local more="-n 8"
  if [ "$SMALL" ]; then more="-n 0 -k fp8_products" XALMA_GPU_TESTS=cpu; export XALMA_GPU_TESTS; fi
  $PY -m pytest -q --maxfail=20 -p no:cacheprovider $more -m gpu ${TESTS:-tests/test_gpu.py tests/paper/test_real_base.py}
}

old_transformers() { # in this step, from its own folder
  local found
  export PYTHONPATH="$LENT/site457:$PYTHONPATH"
  found=$($PY -c "import transformers; print(transformers.__version__)")
  case $found in 4.57.*) ;; *) skip "transformers is $found there: send ${WHEELS}457 of 'quarter_hour.sh wheels'" ;; esac
}

processes() { # of profile real: one per 11 GiB of the GPU (an estimate), at most one per group of languages; each waits for Python
  local mib n
  mib=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null | head -n 1)
  n=$((${mib:-0} / 11500))
  echo $((n < 1 ? 1 : n > 8 ? 8 : n))
}

has_pack() { [ -f "$LENT/pack/index.json" ] || skip "no pack: send the folders of 'quarter_hour.sh parts' first"; }

real() { # scale, workers, seconds, further arguments
  local scale=$1 workers=$2 seconds=$3
  shift 3
  has_pack
  $PY benchmarks/real.py run --profile real --pack "$LENT/pack" --out "$OUT" --work "$LENT/work-$scale" --scale "$scale" \
    --workers "$workers" --seconds "$seconds" "$@"
}

train() { # name of the file, further arguments of benchmarks/training_throughput.py
  local file=$1
  shift
  set -- --repeats 1 --threads 4 --warmup 1 --steps 3 --gradient-checkpointing "$@"
  # compiling for a CPU takes a minute
  if [ "$SMALL" ]; then set -- "${@//compiled/xalma}" --shapes tiny --steps 1 --batch 4 --micro 2 --rows packed:64 --threads 1; fi
  $PY benchmarks/training_throughput.py --one-process --out "$OUT/$file.json" "$@"
}

fp8_losses() {
  has_pack
  local size="--profile real --rows 32 --block 256 --rate 2e-4 --threads 4"
  if [ "$SMALL" ]; then size="--steps 2 --block 8 --rank 4 --held-out 2"; fi
  $PY benchmarks/fp8_loss.py --pack "$LENT/pack" --out "$OUT/fp8_loss.json" $size --precisions bfloat16 "fp8 and bfloat16"
}

arpo() {
  needs trl datasets
  local size="--shapes 7b --steps 4 --threads 4"
  if [ "$SMALL" ]; then size="--shapes module --steps 2 --batch-size 2"; fi
  $PY benchmarks/preference_throughput.py --one-process --out "$OUT/preference_throughput.json" $size
}

comet() {
  old_transformers
  needs comet
  local size="--lines 200 --full-lines 200"
  if [ "$SMALL" ]; then size="--lines 1 --full-lines 0 --vocab 400 --repeats 1"; fi
  $PY benchmarks/comet_throughput.py --out "$OUT/comet_throughput.json" $size
}

decode() {
  local size="--layers 40 --hidden 5120 --heads 40 --intermediate 13824 --vocab 32000 --steps 16 --repeats 1"
  old_transformers
  if [ "$SMALL" ]; then size="--layers 1 --hidden 32 --heads 2 --intermediate 32 --vocab 64 --rank 2 --steps 1 --prompt 4 --bandwidth-mib 1"; fi
  $PY benchmarks/module_serving.py --ways in_turn gated --out "$OUT/module_serving_457.json" $size
}

parts() { # the pack in $DEV/p1, $DEV/p2, … of at most PART bytes each, with hashes
  # 64 MiB travel per call, and the working tree is in each of them
  local room=$((63 * 2 ** 20 - $(git ls-files -z | du -cb --files0-from=- | tail -n 1 | cut -f1)))
  rm -rf "$DEV"/p[0-9]* && mkdir -p "$DEV/p1"
  tar -c --sort=name --mtime=@0 -C "$PACK" . | split -b "${PART:-$room}" -d - "$DEV/part"
  local n=0 file
  for file in "$DEV"/part*; do
    n=$((n + 1))
    mkdir -p "$DEV/p$n" && mv "$file" "$DEV/p$n/"
  done
  (cd "$PACK" && sha256sum -- *) >"$DEV/p1/SHA256"
  echo "$n" >"$DEV/p1/COUNT"
  du -sm "$DEV"/p*
}

wheels() { # what a lent machine lacks, as requirements.lock has it; and what transformers 4.57 and COMET need, apart
  local name get="$PY -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp"
  for name in manylinux_2_28 manylinux_2_17 manylinux2014; do get+=" --platform ${name}_x86_64"; done
  pins() { for name in "$@"; do grep -i "^$name==" requirements.lock | cut -d' ' -f1; done; }
  # ipadic, a dictionary, comes as source alone
  $PY -m pip wheel -q --no-deps -w "$WHEELS" $(pins ipadic) && $get -d "$WHEELS" $(pins ${OUR_PACKAGES/ipadic /}) && $get -d "${WHEELS}457" $(pins $OLD_PACKAGES)
  du -sm "$WHEELS" "${WHEELS}457"
}
export -f setup install tests has_pack real train fp8_losses arpo comet decode skip needs old_transformers

module="--shapes 13b --kinds adapter"
read -ra MORE <<<"${SETS:-}"
for number in "$@"; do
  case $number in
    parts) PACK=${PACK:?the folder of the pack} parts ;;
    wheels) wheels ;;
    1) step setup "${LIMIT_1:-90}" setup ;;
    2) step test-gpu "${LIMIT_2:-90}" tests ;;
    3) step real "${LIMIT_3:-545}" real "${SCALE:-1}" "${WORKERS:-$(processes)}" "${SECONDS_REAL:-505}" "${MORE[@]}" ;;
    probe) step probe "${LIMIT_P:-100}" real "${SCALE:-0.06}" "${WORKERS:-$(processes)}" "${SECONDS_REAL:-60}" --only stage1,base,g6 "${MORE[@]}" ;;
    4) step 13b-512 "${LIMIT_4:-140}" train 13b_512 $module --rows packed:512 --batch 16 \
         --systems xalma@8 trainer@8 compiled@8 stored@1 xalma@16 ;;
    5) step 13b-2048 "${LIMIT_5:-120}" train 13b_2048 $module --rows packed:2048 --batch 4 \
         --systems xalma@2 trainer@2 compiled@2 xalma@1 ;;
    6) step 13b-fp8 "${LIMIT_6:-120}" train 13b_fp8 $module --rows packed:512 --batch 16 \
         --systems fp8+compiled@8 compiled@8 fp8@8 xalma@8 ;;
    7) step fp8-loss "${LIMIT_7:-90}" fp8_losses ;;
    8) step 7b-full "${LIMIT_8:-90}" train 7b_full --shapes 7b --kinds full --rows packed:512 --batch 16 \
         --systems xalma@8 trainer@8 ;;
    9) step 7b-arpo "${LIMIT_9:-100}" arpo ;;
    10) step comet "${LIMIT_10:-60}" comet ;;
    11) step decode "${LIMIT_11:-120}" decode ;;
    *) echo "no step $number" >&2; exit 2 ;;
  esac
done
exit 0
