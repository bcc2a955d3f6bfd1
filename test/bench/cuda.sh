#!/usr/bin/env bash
# Everything that is to be shown on a CUDA machine, in about eight minutes: builds the bridge against its PyTorch ($LIBTORCH or
# Python's torch package), tries each risky operation, runs operator tests and goldens on the device, times alitok beside eager
# and compiled PyTorch, and trains a small model of each kind. It needs Node.js, a C++ compiler, node_modules and a built dist/,
# neither npm nor a network. What fails or takes too long is said at the end; the rest goes on. What matters most comes first.
#   bash test/bench/cuda.sh                                  # results in cuda-results/, or where $OUT says
#   STAGES="build smoke tests" bash test/bench/cuda.sh       # some of: build smoke tests times compiled others curves tfjs
#   SECONDS_LEFT=300 bash test/bench/cuda.sh                 # all that fits in five minutes
#   DEVICE=cpu QUICK=1 bash test/bench/cuda.sh               # a rehearsal without a GPU
set -uo pipefail
cd "$(dirname "$0")/../.."
device=${DEVICE:-cuda}
ALL="build smoke tests times compiled others curves tfjs"
out=${OUT:-cuda-results}
python=${PYTHON:-python3}
ends=$((SECONDS + ${SECONDS_LEFT:-480}))
mkdir -p "$out"
export ALITOK_TEST_ENGINES=libtorch ALITOK_TEST_DEVICE=$device

# What is timed: cases of AR-B and the tokenizer, and whole images of the larger generators.
if [ -n "${QUICK:-}" ]; then
  cases="sample:1:2 encode:1" compiled_cases="encode:1" exact_cases="sample:1:2 train:1" train=train:1 large=sample:1:2
  tests="test/train/step/optimization.test.ts test/golden/generator.test.ts" curves="--steps 4"
else
  cases="sample:1 sample:64 train:64 encode:64 decode:64 sample:256" compiled_cases="sample:1 sample:64 train:64 encode:64 decode:64"
  exact_cases="sample:64 train:64 encode:64 decode:64" train=train:64 large=sample:64
  tests=$(grep -v -e '^#' -e tfjs test/device-tests.txt) curves=""
  # shellcheck disable=SC2086 # a list of files; those that draw images need sharp
  [ -d node_modules/sharp ] || tests=$(grep -L quickstart/pictures $tests)
fi

summary=()

# stage NAME SECONDS COMMAND...: runs it for so long at most. All that it says is kept in $out/log.txt, its end is shown.
stage() {
  local name=$1 most=$2 began=$SECONDS left=$((ends - SECONDS)) code
  shift 2
  [ "$left" -lt "$most" ] && most=$left
  if [ "$most" -le 2 ]; then
    summary+=("$name: no time was left")
    return 1
  fi
  echo "== $name" | tee -a "$out/log.txt"
  timeout -k 5 "$most" "$@" 2>&1 | tee -a "$out/log.txt" | tail -n "${LINES_SHOWN:-40}"
  code=${PIPESTATUS[0]}
  case $code in
    0) summary+=("$name: ok, $((SECONDS - began)) s") ;;
    124 | 137) summary+=("$name: ended after $most s, unfinished") ;;
    *) summary+=("$name: FAILED ($code) after $((SECONDS - began)) s") ;;
  esac
  return $code
}

versions() {
  nvidia-smi --query-gpu=name,memory.total,driver_version,clocks.max.sm --format=csv,noheader 2> /dev/null || echo "no nvidia-smi"
  "$python" -c 'import torch; print("torch", torch.__version__, "cuda", torch.version.cuda)'
  node -p '"Node.js " + process.version + ", " + os.availableParallelism() + " processors"'
  git rev-parse HEAD 2> /dev/null || true
}

build() {
  if [ ! -f dist/cli/main.js ]; then
    node node_modules/typescript/bin/tsc -p tsconfig.build.json --noEmitOnError &&
      node node_modules/assemblyscript/bin/asc.js --config src/engine/wasm/assembly/asconfig.json || return 1
  fi
  node src/engine/libtorch/native/build.js
}

# The options of alitok and of the peer for a precision.
precision() {
  case $1 in
    bf16) ours=(--precision bf16) peer=(--bf16) ;;
    tf32) ours=(--tf32) peer=(--tf32) ;;
    *) ours=() peer=() ;;
  esac
  ours+=(--engine libtorch --device "$device")
  peer+=(--device "$device")
}

# times PRECISION SIZE REPEATS CASES...: alitok and eager PyTorch, which goes on where the other fails.
times() {
  local size=$2 repeats=$3 found given=() option
  precision "$1"
  shift 3
  node bin/alitok.js "${ours[@]}" bench "$@" -c "configs/alitok_$size.yaml" --repeats "$repeats" --json | tee -a "$out/times.jsonl"
  found=${PIPESTATUS[0]}
  # What is a value of alitok's config is an option of the peer.
  for option in "$@"; do
    case $option in
      generator.dropout=*) peer+=(--dropout "${option#*=}") ;;
      *) given+=("$option") ;;
    esac
  done
  "$python" test/bench/peer.py "${given[@]}" "${peer[@]}" --size "$size" --repeats "$repeats" | tee -a "$out/times.jsonl"
  return "$found"
}

# composed CASES...: alitok in bf16 without its own kernels, which says what they gain.
composed() {
  precision bf16
  ALITOK_CUDA_KERNELS=0 node bin/alitok.js "${ours[@]}" bench "$@" -c configs/alitok_b.yaml --repeats 1 --json | tee -a "$out/times.jsonl"
  return "${PIPESTATUS[0]}"
}

# compiled CASES...: compiled PyTorch in bf16, whose kernels are in the compiler's cache.
compiled() {
  precision bf16
  "$python" test/bench/peer.py "$@" "${peer[@]}" --compile --repeats 2 | tee -a "$out/times.jsonl"
  return "${PIPESTATUS[0]}"
}

# shellcheck disable=SC2086 # lists of cases and files
run_part() {
  case $1 in
    build)
      stage versions 20 "${part[@]}" versions
      # Beside the build the compiler of the peer fills its cache.
      timeout 240 "$python" test/bench/peer.py $compiled_cases --device "$device" --bf16 --compile --repeats 1 > "$out/cache.txt" 2>&1 &
      cache=$!
      stage build 240 "${part[@]}" build
      ;;
    smoke) stage smoke 60 node test/bench/smoke.js --device "$device" ;;
    tests) stage tests 120 node node_modules/vitest/vitest.mjs run $tests --maxWorkers "${WORKERS:-8}" ;;
    times)
      wait ${cache:-} # or both would be timed at once
      stage times-bf16 150 "${part[@]}" times bf16 b 2 $cases
      ;;
    compiled) stage times-compiled 120 "${part[@]}" compiled $compiled_cases ;;
    others)
      stage times-composed 60 "${part[@]}" composed ${cases%% *} $train
      stage times-bf16-no-dropout 40 "${part[@]}" times bf16 b 2 $train generator.dropout=0
      stage times-bf16-l 40 "${part[@]}" times bf16 l 1 $large
      stage times-tf32 60 "${part[@]}" times tf32 b 1 $exact_cases
      stage times-float32 60 "${part[@]}" times float32 b 1 $exact_cases
      for size in l xl; do stage times-float32-$size 60 "${part[@]}" times float32 $size 1 $large; done
      ;;
    curves)
      stage curves 60 node test/bench/curves.js --device "$device" $curves
      stage curves-bf16 60 node test/bench/curves.js --device "$device" --precision bf16 $curves
      ;;
    tfjs) stage tfjs 90 node node_modules/vitest/vitest.mjs run test/tfjs/libtorch.test.ts ;;
    *)
      echo "there is no stage $1; choose of $ALL"
      exit 2
      ;;
  esac
}

# A part of this script as a command of its own, which `timeout` can end.
part=(bash test/bench/cuda.sh --part)
if [ "${1:-}" = --part ]; then
  shift
  "$@"
  exit
fi

: > "$out/times.jsonl"
: > "$out/log.txt"
for name in ${STAGES:-$ALL}; do run_part "$name"; done
{
  echo
  node test/bench/table.js "$out/times.jsonl"
  printf '%s\n' "${summary[@]}"
} 2>&1 | tee "$out/table.txt"
! printf '%s\n' "${summary[@]}" | grep -q -v ': ok, '
