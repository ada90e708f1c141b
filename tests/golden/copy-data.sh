#!/bin/sh
# Copies the part of the shared reference data that was made for this project into tests/golden/data, so that a fresh
# clone tests itself. Vocabularies, templates and data sets made by others stay where they are.
#
#     tests/golden/copy-data.sh [GOLDEN]      # default: ../shared/golden beside the repository
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
golden=${1:-$root/../shared/golden}
data=$root/tests/golden/data
limit_kib=12288

folders="
    models/llama32 models/gemma3-text models/qwen2-moe models/phi3-longrope models/gpt2
    models/mistral-headdim-f16 models/mixtral models/phi4-mini
    quant/gguf/gpt2 quant/gguf/qwen2-moe quant/gguf/llama32 quant/gguf/mistral-swa quant/gguf/smollm3-p4
"
files="quant/bnb4bit/edge8x512.nf4.safetensors quant/bnb4bit/tail1000.nf4.dq.safetensors"

[ -d "$golden/models" ] || { echo "copy-data.sh: no reference data at $golden" >&2; exit 1; }
for folder in $folders; do
    rm -rf "${data:?}/$folder"
    mkdir -p "$data/$folder"
    for file in "$golden/$folder"/*; do
        [ -f "$file" ] && install -m 644 "$file" "$data/$folder/"
    done
done
for file in $files; do
    mkdir -p "$data/${file%/*}"
    install -m 644 "$golden/$file" "$data/$file"
done

kib=$(du -sk --apparent-size "$data" | cut -f1)
echo "$kib KiB in $data"
[ "$kib" -le "$limit_kib" ] || { echo "copy-data.sh: more than $limit_kib KiB" >&2; exit 1; }
