// The command lines of the verification and of the micro-benchmark.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cases.h"
#include "isa.h"

struct Options {
    std::vector<enum ggml_type> types;
    std::vector<const qm_chosen *> sets;
    std::vector<bool> imatrix = {false, true};
    int64_t blocks = 20000;            // of each type, half of them for each mode
    double seconds = 0;
    int threads = 1;
    uint64_t seed = 1;
    Hostility most = Hostility::all;   // the most hostile weights wanted
    bool digest = false, count = false, sabotage = false, which = false, json = false;
};

// Exits with a message on a word it does not know.
Options parse_options(int argc, char ** argv);
