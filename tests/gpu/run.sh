#!/bin/sh
# Builds the preset `cuda`, runs the tests that need a GPU and prints their figures (device,
# bandwidth). Without a GPU the tests say that they are skipped, and this exits 77.
set -eu
cd "$(dirname "$0")/../.."

cmake --preset cuda
cmake --build --preset cuda --target airllm_cuda cuda_test
ctest --preset cuda -L gpu --output-on-failure --no-tests=error

figures=$(build/cuda/tests/cuda_test --gtest_filter='*PrintsBandwidth')
printf '%s\n' "$figures" | grep -E '^(device|bf16|copy)|SKIPPED|no CUDA device' || true
case $figures in
  *SKIPPED*) exit 77 ;;
esac
