// llama-quantize's own argument parser and importance matrix reader, compiled from the pinned source.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "llama.h"

namespace ladder {

using QuantizeCall = std::function<uint32_t(const llama_model_quantize_params & params)>;

// Runs llama-quantize's main function on `args` (without the program's name). Where it would call
// llama_model_quantize, `call` runs instead, with the parameters it made of the arguments.
// Returns its exit status. Like the tool, it prints, and it may exit the process on bad arguments.
int as_llama_quantize(const std::vector<std::string> & args, const QuantizeCall & call);

// Builds the search tables that ggml needs for the default type of a file type: seconds for some. Child processes
// made after this have them.
void prepare_tables(const std::string & file_type);

// The names that llama-quantize takes for a file type, "COPY" included, in its order.
std::vector<std::string> file_type_names();

}  // namespace ladder
