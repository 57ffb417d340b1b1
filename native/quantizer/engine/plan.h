// What every output file will hold, byte for byte except for the tensor data, known before any work is done.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "options.h"
#include "source.h"

namespace ladder {

struct OutTensor {
    int       source;  // index into Source::tensors()
    ggml_type type;
    uint64_t  offset;  // from the start of the file
    uint64_t  size;
};

struct OutFile {
    std::string            name;    // within the output folder
    std::string            header;  // keys and tensor table, padded to the first tensor
    std::vector<OutTensor> tensors; // in file order
    uint64_t               size;
};

struct Variant {
    std::string          file_type;
    std::vector<OutFile> files;           // more than one only with --keep-split
    int                  fallbacks = 0;   // tensors whose rows do not fit the type that the recipe wants
    std::string          failure;         // set during the pass when a tensor of this variant cannot be quantized
};

using ImportanceMatrix = std::unordered_map<std::string, std::vector<float>>;

// Lets llama.cpp plan every variant, in child processes, as many at once as there are threads.
// `folder` is a scratch folder for skeletons. Throws a Failure with llama.cpp's own reason where it refuses.
std::vector<Variant> plan_variants(const Options & options, const Source & source, const std::string & folder);

// The importance matrix as llama-quantize prepares it from the options; empty without --imatrix.
ImportanceMatrix load_importance(const Options & options);

}  // namespace ladder
