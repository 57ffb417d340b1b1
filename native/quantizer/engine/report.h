// The facts about files and the run, as JSON.
#pragma once

#include <string>
#include <vector>

#include "options.h"
#include "pass.h"

namespace ladder {

struct Summary {
    double    plan = 0, check = 0, reserve = 0, pass = 0, publish = 0;  // seconds
    uint64_t  written = 0;                                 // bytes of tensor data
    PassTimes times;
};

// One line: name, variant, size, digest, fallback count and the table of tensors.
std::string file_facts(const OpenFile & file, int index, const std::vector<TensorWork> & work);

std::string summary_event(const Summary & summary, const Options & options, const std::vector<TensorWork> & work);

}  // namespace ladder
