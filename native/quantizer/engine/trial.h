// One variant as llama.cpp itself would make it, tried on the real file's header and on the skeleton.
#pragma once

#include <string>

#include "options.h"

namespace ladder {

struct Trial {
    std::string file_type;
    std::string input;     // the real model
    std::string skeleton;  // see skeleton.h
    std::string base;      // results: BASE.gguf, or BASE-0000i-of-0000n.gguf with --keep-split
    std::string dry_log;   // file that receives what llama.cpp logs in a dry run over `input`
    std::string output;    // file that receives all that is printed
};

// Forks; in the child, runs llama-quantize's main twice (dry over the input, for real over the skeleton).
// Returns the child's process id.
int start_trial(const Options & options, const Trial & trial);

// Why the trial failed, in llama.cpp's words; `status` as waitpid gives it.
std::string trial_refusal(const Trial & trial, int status);

}  // namespace ladder
