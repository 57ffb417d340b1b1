#!/bin/bash
# Verifies the Arm kernels under qemu-user, against ggml compiled without fused multiply-add, and against x86-64's bytes.
#   arm.sh LLAMA_SOURCE BUILD_FOLDER [X86_VERIFY [BLOCKS]]
# Needs g++-aarch64-linux-gnu, qemu-user, cmake and ninja. X86_VERIFY is quantmint-quant-verify built for x86-64.
set -euo pipefail

llama=$(realpath "$1")
mkdir -p "$2"
build=$(realpath "$2")
x86=${3:-}
blocks=${4:-2000}
here=$(dirname "$(realpath "$0")")
types=all
export GGML_NO_BACKTRACE=1

cross=(-G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64
       -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++)

# ggml-base alone. What a native llama-quantize on Arm computes is the second one: GCC fuses there by default.
build_ggml() {  # NAME C_FLAGS
    cmake -S "$llama" -B "$build/$1" "${cross[@]}" -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_C_FLAGS="$2" -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF \
        -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        -DLLAMA_CURL=OFF -DLLAMA_BUILD_SERVER=OFF > "$build/$1.log" 2>&1
    cmake --build "$build/$1" --target ggml-base >> "$build/$1.log" 2>&1
}
build_ggml ggml-exact -ffp-contract=off
build_ggml ggml-fused -ffp-contract=fast

cmake -S "$here/.." -B "$build/quantizer" "${cross[@]}" -DLLAMA_SOURCE="$llama" -DQM_KERNELS_ONLY=ON \
    -DLLAMA_LIBS="$build/ggml-exact/bin" > "$build/quantizer.log" 2>&1
cmake --build "$build/quantizer" --target quantmint-quant-verify >> "$build/quantizer.log" 2>&1

verify() {  # GGML ARGUMENTS...
    local libs=$build/$1/bin
    shift
    qemu-aarch64 -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH="$libs" "$build/quantizer/quantmint-quant-verify" "$@"
}

echo "== against ggml without fused multiply-add ($blocks blocks of each type)"
verify ggml-exact --type "$types" --isa neon --blocks "$blocks" --threads "$(nproc)"

if [ -n "$x86" ]; then
    echo "== against x86-64, by digest"
    verify ggml-exact --digest --type "$types" --isa neon --blocks "$blocks" | sed 's/ neon / /' > "$build/arm.digest"
    "$x86" --digest --type "$types" --isa scalar --blocks "$blocks" | sed 's/ scalar / /' > "$build/x86.digest"
    diff "$build/x86.digest" "$build/arm.digest"
    echo "equal: $(wc -l < "$build/arm.digest") digests"
fi

echo "== for the record: blocks of ordinary weights that ggml as compiled by default on Arm makes otherwise"
verify ggml-fused --count --cases ordinary --type "$types" --isa neon --blocks "$blocks" --threads "$(nproc)" || true
