// The command line.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace ladder {

struct VariantRequest {
    std::string file_type;  // llama-quantize's name: "Q4_K_M", "COPY"
    std::string file_name;  // within the output folder, ends in ".gguf"
};

struct Options {
    std::string                 input;
    std::string                 folder;
    std::vector<VariantRequest> variants;
    std::vector<std::string>    tool_options;  // what llama-quantize takes before its positional arguments
    std::string                 imatrix;       // empty: none
    std::string                 source_digest; // empty: size, time and header of the input stand for it
    bool                        keep_split = false;
    bool                        sync       = true;
    int                         threads    = 0;
    uint64_t                    memory     = uint64_t(2) << 30;
};

// Throws a user Failure. Handles --help and --list-types itself, by printing and leaving.
Options parse_options(int argc, char ** argv);

}  // namespace ladder
