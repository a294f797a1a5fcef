#!/bin/sh
# Runs a command as if the processor had AVX2 alone (as root, on Linux):
#
#     sh benchmarks/held.sh python benchmarks/step.py --record
#
# hilum and torch's kernels go by /proc/cpuinfo, which says so for this command; the peers' libraries
# are told by their own settings. Caches and memory stay the processor's own. What is recorded is kept
# as a kind of its own.
set -eu
said=$(mktemp)
sed -E '/^flags/s/ (avx512|avx_vnni|avx10|amx)[a-z0-9_]*//g' /proc/cpuinfo > "$said"
export BENCHMARK_HELD=avx2
export ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 DNNL_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
export OPENBLAS_CORETYPE=Haswell OPENCV_CPU_DISABLE=AVX512_SKX,AVX512_COMMON
exec unshare -m sh -c 'mount --bind "$1" /proc/cpuinfo; shift; exec "$@"' sh "$said" "$@"
