#!/usr/bin/env bash
# Everything that is to be shown on a CUDA machine: builds the program and the bridge against its PyTorch ($LIBTORCH or
# Python's torch package), runs operator tests and goldens on the device, and times alitok beside the PyTorch peer. It needs
# Node.js, a C++ compiler and node_modules, neither npm nor a network. What fails is said at the end; the rest goes on.
#   bash test/bench/cuda.sh                                   # results in cuda-results/, or where $OUT says
#   STAGES="build doctor tests" bash test/bench/cuda.sh       # one part after the other, where time is short
#   STAGES=times KINDS=bf16 CASES="sample:64 train:64" ROUNDS=3 bash test/bench/cuda.sh
#   DEVICE=cpu QUICK=1 bash test/bench/cuda.sh                # a rehearsal without a GPU
set -uo pipefail
cd "$(dirname "$0")/../.."
device=${DEVICE:-cuda}
out=${OUT:-cuda-results}
python=${PYTHON:-python3}
rounds=${ROUNDS:-3}
if [ -n "${QUICK:-}" ]; then
  cases=${CASES:-sample:1:2 encode:1}
  tests=${TESTS:-test/unit/ops.test.ts test/golden/generator.test.ts test/golden/bf16.test.ts}
else
  cases=${CASES:-sample:1 sample:64 sample:256 train:64 encode:64 decode:64}
  tests=${TESTS:-test/unit/ops.test.ts test/unit/large-shapes.test.ts test/unit/optimizer.test.ts test/golden test/tfjs/suite.test.ts}
fi
mkdir -p "$out"
failed=()

# stage NAME COMMAND...: runs it, and keeps all that it says in $out/NAME.txt.
stage() {
  local name=$1
  shift
  echo "== $name"
  if "$@" > >(tee "$out/$name.txt") 2>&1; then return 0; fi
  failed+=("$name")
  return 1
}

build() {
  # What npm run build does.
  node node_modules/typescript/bin/tsc -p tsconfig.build.json --noEmitOnError &&
    node node_modules/assemblyscript/bin/asc.js --config src/engine/wasm/assembly/asconfig.json &&
    node src/engine/libtorch/native/build.js
}

machine() {
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2> /dev/null || echo "no nvidia-smi"
  "$python" -c 'import torch; print("torch", torch.__version__, "cuda", torch.version.cuda)'
  git rev-parse HEAD 2> /dev/null || true
}

run_tests() {
  # shellcheck disable=SC2086 # a list of files
  ALITOK_TEST_ENGINES=libtorch ALITOK_TEST_DEVICE=$device node node_modules/vitest/vitest.mjs run $tests
}

times() {
  local options=(--precision float32)
  [ "$1" = tf32 ] && options+=(--tf32)
  [ "$1" = bf16 ] && options=(--precision bf16 --weights bf16) # of sampling alone
  # shellcheck disable=SC2086 # a list of cases
  node test/bench/compare.js $cases --device "$device" "${options[@]}" --python "$python" \
    --rounds "$rounds" --raw "$out/times-$1.jsonl"
}

for part in ${STAGES:-build doctor tests times}; do
  case $part in
    build)
      stage machine machine
      stage build build || break # nothing works without
      ;;
    doctor) stage doctor node bin/alitok.js --engine libtorch --device "$device" doctor ;;
    tests) stage tests run_tests ;;
    times) for kind in ${KINDS:-float32 tf32 bf16}; do stage "ratios-$kind" times "$kind"; done ;;
    *)
      echo "there is no stage $part; choose of build doctor tests times"
      exit 2
      ;;
  esac
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}; see $out/"
  exit 1
fi
echo "all of it is in $out/"
