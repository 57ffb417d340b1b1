#include "options.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <strings.h>

namespace {

// Every type that llama-quantize writes, those with kernels first.
const enum ggml_type TYPES[] = {
    GGML_TYPE_Q4_0,  GGML_TYPE_Q4_1,  GGML_TYPE_Q5_0,    GGML_TYPE_Q5_1,   GGML_TYPE_Q8_0,  GGML_TYPE_Q2_K,
    GGML_TYPE_Q3_K,  GGML_TYPE_Q4_K,  GGML_TYPE_Q5_K,    GGML_TYPE_Q6_K,   GGML_TYPE_IQ4_NL, GGML_TYPE_IQ4_XS,
    GGML_TYPE_TQ1_0, GGML_TYPE_TQ2_0, GGML_TYPE_MXFP4,   GGML_TYPE_IQ3_XXS, GGML_TYPE_IQ3_S, GGML_TYPE_IQ2_XXS,
    GGML_TYPE_IQ2_XS, GGML_TYPE_IQ2_S, GGML_TYPE_IQ1_S,  GGML_TYPE_IQ1_M};

[[noreturn]] void refuse(const std::string & why) {
    fprintf(stderr,
            "%s\nusage: [--type all|NAME,...] [--isa all|NAME,...] [--imatrix both|with|without] [--blocks N]\n"
            "       [--cases all|portable|ordinary] [--seconds S] [--threads N] [--seed N] [--digest] [--count]\n"
            "       [--sabotage] [--which] [--json]\n",
            why.c_str());
    exit(2);
}

std::vector<std::string> split(const std::string & text) {
    std::vector<std::string> parts(1);
    for (const char c : text) {
        if (c == ',') parts.emplace_back();
        else parts.back() += c;
    }
    return parts;
}

std::vector<enum ggml_type> find_types(const std::string & names) {
    std::vector<enum ggml_type> found;
    for (const std::string & name : split(names)) {
        const size_t before = found.size();
        for (const enum ggml_type type : TYPES)
            if (name == "all" || strcasecmp(name.c_str(), ggml_type_name(type)) == 0) found.push_back(type);
        if (found.size() == before) refuse("unknown type: " + name);
    }
    return found;
}

std::vector<const qm_chosen *> find_sets(const std::string & names) {
    std::vector<const qm_chosen *> found;
    for (const std::string & name : split(names)) {
        const size_t before = found.size();
        for (int i = 0; qm_available(i) != nullptr; i++)
            if (name == "all" || name == qm_available(i)->set.isa) found.push_back(qm_available(i));
        if (found.size() == before) refuse("no such instruction set here: " + name);
    }
    return found;
}

std::vector<bool> find_modes(const std::string & name) {
    if (name == "both") return {false, true};
    if (name == "with") return {true};
    if (name == "without") return {false};
    refuse("--imatrix is both, with or without, not " + name);
}

Hostility find_cases(const std::string & name) {
    if (name == "ordinary") return Hostility::ordinary;
    if (name == "portable") return Hostility::portable;
    if (name == "all") return Hostility::all;
    refuse("--cases is all, portable or ordinary, not " + name);
}

}  // namespace

Options parse_options(int argc, char ** argv) {
    Options o;
    o.types = find_types("all");
    o.sets = find_sets("all");
    for (int i = 1; i < argc; i++) {
        const std::string word = argv[i];
        if (word == "--digest") o.digest = true;
        else if (word == "--count") o.count = true;
        else if (word == "--sabotage") o.sabotage = true;
        else if (word == "--which") o.which = true;
        else if (word == "--json") o.json = true;
        else if (i + 1 == argc) refuse("unknown, or without its value: " + word);
        else if (word == "--type") o.types = find_types(argv[++i]);
        else if (word == "--isa") o.sets = find_sets(argv[++i]);
        else if (word == "--imatrix") o.imatrix = find_modes(argv[++i]);
        else if (word == "--cases") o.most = find_cases(argv[++i]);
        else if (word == "--blocks") o.blocks = atoll(argv[++i]);
        else if (word == "--seconds") o.seconds = atof(argv[++i]);
        else if (word == "--threads") o.threads = atoi(argv[++i]);
        else if (word == "--seed") o.seed = (uint64_t) atoll(argv[++i]);
        else refuse("unknown: " + word);
    }
    if (o.blocks < 1 || o.threads < 1) refuse("--blocks and --threads must be at least 1");
    return o;
}
