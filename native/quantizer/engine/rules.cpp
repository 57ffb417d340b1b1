// Everything that the included source includes comes first, outside the namespace.
#include "rules.h"

#include <algorithm>
#include <cctype>
#include <clocale>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <unordered_map>
#include <vector>

#include "build-info.h"
#include "common.h"
#include "gguf.h"
#include "imatrix-loader.h"
#include "llama-ext.h"

namespace {

// llama-quantize's main has no parameter to carry this.
const ladder::QuantizeCall * current_call = nullptr;

uint32_t call_instead(const char *, const char *, const llama_model_quantize_params * params) {
    return (*current_call)(*params);
}

// Freeing the backend would free ggml's search tables, which this process goes on using.
void keep_tables() {}

}  // namespace

namespace llama_tool {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#define llama_model_quantize call_instead
#define llama_backend_free keep_tables
#include "quantize.cpp"
#undef llama_backend_free
#undef llama_model_quantize
#pragma GCC diagnostic pop
}  // namespace llama_tool

namespace ladder {

int as_llama_quantize(const std::vector<std::string> & args, const QuantizeCall & call) {
    std::vector<std::string> words = {"llama-quantize"};
    words.insert(words.end(), args.begin(), args.end());
    std::vector<char *> argv;
    for (std::string & word : words) {
        argv.push_back(word.data());
    }
    argv.push_back(nullptr);
    current_call = &call;
    return llama_tool::llama_quantize(int(words.size()), argv.data());
}

void prepare_tables(const std::string & file_type) {
    llama_ftype parsed;
    std::string name;
    if (llama_tool::try_parse_ftype(file_type, parsed, name)) {
        ggml_quantize_init(llama_ftype_get_default_type(parsed));
    }
}

std::vector<std::string> file_type_names() {
    std::vector<std::string> names;
    for (const llama_tool::quant_option & option : llama_tool::QUANT_OPTIONS) {
        names.push_back(option.name);
    }
    return names;
}

}  // namespace ladder
