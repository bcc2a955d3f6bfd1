#!/usr/bin/env bash
# Everything that is to be shown on a CUDA machine, in about eight minutes: builds the bridge against its PyTorch ($LIBTORCH or
# Python's torch package), tries each risky operation, runs operator tests and goldens on the device, times alitok beside eager
# and compiled PyTorch, and trains a small model of each kind. It needs Node.js, a C++ compiler, node_modules and a built dist/,
# neither npm nor a network. What fails or takes too long is said at the end; the rest goes on. What matters most comes first.
#   bash test/bench/cuda.sh                                  # results in cuda-results/, or where $OUT says
#   STAGES="build smoke tests" bash test/bench/cuda.sh       # some parts; SECONDS_LEFT=300 gives all of them less time
#   DEVICE=cpu QUICK=1 bash test/bench/cuda.sh               # a rehearsal without a GPU
set -uo pipefail
cd "$(dirname "$0")/../.."
device=${DEVICE:-cuda}
out=${OUT:-cuda-results}
python=${PYTHON:-python3}
ends=$((SECONDS + ${SECONDS_LEFT:-480}))
mkdir -p "$out"
export ALITOK_TEST_ENGINES=libtorch ALITOK_TEST_DEVICE=$device

# What is timed in each precision: the cases of AR-B and the tokenizer, and whole images of the larger generators.
if [ -n "${QUICK:-}" ]; then
  cases_bf16="sample:1:2 train:1 encode:1" plain=train:1 larger_bf16="" cases_tf32="" cases_float32="sample:1:2" larger_float32=""
  tests="test/unit/optimizer.test.ts test/golden/generator.test.ts" curves="--steps 4"
else
  cases_bf16="sample:1 sample:64 train:64 encode:64 decode:64 sample:256" plain=train:64 larger_bf16="l"
  cases_tf32="sample:64 train:64 encode:64 decode:64" cases_float32="sample:64 train:64" larger_float32="l xl"
  tests=$(grep -v -e '^#' -e tfjs test/device-tests.txt) curves=""
fi
larger=sample:64

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

machine() {
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

# The peer's compiled cases, once, so that their kernels are in the compiler's cache when they are timed.
fill_cache() {
  # shellcheck disable=SC2086 # a list of cases
  "$python" test/bench/peer.py $1 --device "$device" --bf16 --compile --repeats 1
}

# times PRECISION SIZE REPEATS COMPILED CASES...: alitok, eager PyTorch and, where wanted, compiled PyTorch.
times() {
  local precision=$1 size=$2 repeats=$3 compiled=$4 ours=() peer=(--device "$device" --size "$size" --repeats "$repeats")
  shift 4
  case $precision in
    bf16) ours=(--precision bf16) peer+=(--bf16) ;;
    tf32) ours=(--tf32) peer+=(--tf32) ;;
  esac
  [ "$device" = cpu ] || ours+=(--device "$device")
  node bin/alitok.js --engine libtorch "${ours[@]}" bench "$@" -c "configs/alitok_$size.yaml" --repeats "$repeats" --json |
    tee -a "$out/times.jsonl"
  local found=${PIPESTATUS[0]}
  # What follows is PyTorch's; a value of the config is an option there.
  local given=() option
  for option in "$@"; do
    case $option in
      generator.dropout=*) peer+=(--dropout "${option#*=}") ;;
      *) given+=("$option") ;;
    esac
  done
  "$python" test/bench/peer.py "${given[@]}" "${peer[@]}" | tee -a "$out/times.jsonl"
  [ "$compiled" = no ] || "$python" test/bench/peer.py "${given[@]}" "${peer[@]}" --compile | tee -a "$out/times.jsonl"
  return "$found"
}

# shellcheck disable=SC2086 # lists of cases and files
run_part() {
  case $1 in
    build)
      stage machine 20 "${part[@]}" machine
      [ "$device" = cpu ] || fill_cache "$cases_bf16" >> "$out/cache.txt" 2>&1 &
      cache=$!
      stage build 240 "${part[@]}" build
      ;;
    smoke) stage smoke 60 node test/bench/smoke.js --device "$device" ;;
    tests) stage tests 120 node node_modules/vitest/vitest.mjs run $tests --maxWorkers "${WORKERS:-8}" ;;
    times)
      wait "${cache:-}" 2> /dev/null
      stage times-bf16 150 "${part[@]}" times bf16 b 2 yes $cases_bf16
      stage times-bf16-without-dropout 40 "${part[@]}" times bf16 b 2 yes $plain generator.dropout=0
      for size in $larger_bf16; do stage "times-bf16-$size" 60 "${part[@]}" times bf16 "$size" 2 no $larger; done
      [ -z "$cases_tf32" ] || stage times-tf32 60 "${part[@]}" times tf32 b 2 no $cases_tf32
      stage times-float32 60 "${part[@]}" times float32 b 2 no $cases_float32
      for size in $larger_float32; do stage "times-float32-$size" 60 "${part[@]}" times float32 "$size" 1 no $larger; done
      ;;
    curves)
      stage curves 60 node test/bench/curves.js --device "$device" $curves
      [ -n "${QUICK:-}" ] || stage curves-bf16 40 node test/bench/curves.js --device "$device" --precision bf16
      ;;
    tfjs) stage tfjs 90 node node_modules/vitest/vitest.mjs run test/tfjs/suite.test.ts ;;
    *)
      echo "there is no stage $1; choose of build smoke tests times curves tfjs"
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
for name in ${STAGES:-build smoke tests times curves tfjs}; do run_part "$name"; done
{
  echo
  node test/bench/table.js "$out/times.jsonl"
  printf '%s\n' "${summary[@]}"
} 2>&1 | tee "$out/table.txt"
! printf '%s\n' "${summary[@]}" | grep -q -v ': ok, '
