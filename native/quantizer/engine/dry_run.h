// Reading the log of llama.cpp's dry run: strictly, since what it says decides what is computed.
#pragma once

#include <string>
#include <vector>

#include "source.h"

namespace ladder {

struct DryRun {
    std::vector<ggml_type> types;  // in the order of `names`
    int                    fallbacks = 0;
};

// `names` are the tensors in the order in which llama.cpp writes them.
// Throws a build Failure for any line of the table that is not exactly as expected.
DryRun parse_dry_run(const std::string & log, const Source & source, const std::vector<std::string> & names);

}  // namespace ladder
