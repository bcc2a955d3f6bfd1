#!/usr/bin/env bash
# Everything that is to be shown on a CUDA machine, in one go: builds the bridge against its PyTorch ($LIBTORCH or
# Python's torch package), runs operator tests and goldens on the device, and times alitok beside the PyTorch peer.
#   bash test/bench/cuda.sh            # results in cuda-results/, or where $OUT says
#   DEVICE=cpu QUICK=1 bash test/bench/cuda.sh   # a rehearsal without a GPU
set -euo pipefail
cd "$(dirname "$0")/../.."
device=${DEVICE:-cuda}
out=${OUT:-cuda-results}
python=${PYTHON:-python3}
mkdir -p "$out"

[ -d dist/cli ] || npm run build
npm run build:libtorch | tee "$out/build.txt"
node bin/alitok.js --engine libtorch --device "$device" doctor | tee "$out/doctor.txt"

ALITOK_TEST_ENGINES=libtorch ALITOK_TEST_DEVICE=$device \
  node node_modules/vitest/vitest.mjs run test/unit/ops.test.ts test/unit/large-shapes.test.ts test/golden test/tfjs 2>&1 |
  tee "$out/tests.txt" | tail -8

if [ -n "${QUICK:-}" ]; then
  cases="sample:1:4 train:1 encode:1 decode:1"
else
  cases="sample:1 sample:64 sample:256 train:64 encode:64 decode:64"
fi
for precision in float32 bf16; do
  node test/bench/compare.js $cases --device "$device" --precision $precision --python "$python" \
    --rounds "${ROUNDS:-3}" --raw "$out/times-$precision.jsonl" | tee "$out/ratios-$precision.txt"
done
