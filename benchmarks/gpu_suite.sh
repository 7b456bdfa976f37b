#!/usr/bin/env bash
# What to run on a machine with one Hopper GPU, from the repository's root: registers and spills of
# every kernel as compiled, conformance on the device, then speed. Results go to $1 (gpu_results/).
# Written without such a machine at hand: expect to mend it on its first run.
set -euo pipefail
out=${1:-gpu_results}
mkdir -p "$out"
export PYTHONPATH=${PYTHONPATH:-.typing}
nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv >"$out/gpu.csv"
python -m leadline.kernels.triton.production >"$out/resources.jsonl"
pytest tests/kernels/triton -n0 -q | tee "$out/conformance.txt"
python -m benchmarks.kernels --json "$out/kernels.json" | tee "$out/kernels.txt"
