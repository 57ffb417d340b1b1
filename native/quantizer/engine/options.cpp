#include "options.h"

#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "failure.h"
#include "rules.h"

namespace ladder {

namespace {

const char * const usage =
    "usage: quantmint-ladder INPUT.gguf --out FOLDER --variant TYPE=NAME.gguf... [options]\n"
    "  --variant TYPE=NAME.gguf    repeated; TYPE is a name that llama-quantize takes\n"
    "  --threads N                 default: the processors this process may use\n"
    "  --memory BYTES              bound of the buffers; default 2147483648\n"
    "  --source-digest TEXT        stands for the input's content when finished variants are recognised\n"
    "  --no-sync                   leave the files to the page cache\n"
    "  --list-types                print the type names and leave\n"
    "as llama-quantize: --imatrix F --include-weights T --exclude-weights T --tensor-type P=T\n"
    "  --tensor-type-file F --output-tensor-type T --token-embedding-type T --override-kv K=T:V\n"
    "  --allow-requantize --leave-output-tensor --pure --keep-split\n"
    "Events are written to standard output, one JSON object a line.\n";

const std::set<std::string> tool_switches = {"--allow-requantize", "--leave-output-tensor", "--pure", "--keep-split"};
const std::set<std::string> tool_values   = {"--imatrix",        "--include-weights",      "--exclude-weights",
                                             "--tensor-type",    "--tensor-type-file",     "--output-tensor-type",
                                             "--token-embedding-type", "--override-kv"};

uint64_t whole_number(const std::string & option, const std::string & text) {
    char * end = nullptr;
    const unsigned long long value = std::strtoull(text.c_str(), &end, 10);
    if (text.empty() || text[0] < '0' || text[0] > '9' || *end != '\0') {
        throw Failure(Blame::user, option + " wants a whole number, not '" + text + "'");
    }
    return value;
}

int usable_processors() {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

VariantRequest variant_request(const std::string & text) {
    const size_t equals = text.find('=');
    VariantRequest request;
    request.file_type = text.substr(0, equals);
    request.file_name = equals == std::string::npos ? "" : text.substr(equals + 1);
    const std::string & name = request.file_name;
    const std::string suffix = ".gguf";
    if (name.size() <= suffix.size() || name.compare(name.size() - suffix.size(), suffix.size(), suffix) != 0 ||
        name.find('/') != std::string::npos || name[0] == '.') {
        throw Failure(Blame::user, "--variant wants TYPE=NAME.gguf with a plain file name, not '" + text + "'");
    }
    const std::vector<std::string> known = file_type_names();
    if (std::find(known.begin(), known.end(), request.file_type) == known.end()) {
        throw Failure(Blame::user, "'" + request.file_type + "' is no type that llama-quantize knows");
    }
    return request;
}

void check(const Options & options) {
    if (options.input.empty() || options.folder.empty() || options.variants.empty()) {
        throw Failure(Blame::user, std::string("input, --out and --variant are needed\n") + usage);
    }
    std::set<std::string> names;
    for (const VariantRequest & request : options.variants) {
        if (!names.insert(request.file_name).second) {
            throw Failure(Blame::user, "two variants would be written to " + request.file_name);
        }
    }
}

// Takes the option at words[at] and its value; returns the place of the last word taken.
size_t take_option(Options & options, const std::vector<std::string> & words, size_t at) {
    const std::string & word = words[at];
    if (tool_switches.count(word)) {
        options.tool_options.push_back(word);
        options.keep_split |= word == "--keep-split";
        return at;
    }
    if (word == "--no-sync") {
        options.sync = false;
        return at;
    }
    if (at + 1 >= words.size()) {
        throw Failure(Blame::user, word + " wants a value");
    }
    const std::string & value = words[at + 1];
    if (tool_values.count(word)) {
        options.tool_options.insert(options.tool_options.end(), {word, value});
        options.imatrix = word == "--imatrix" ? value : options.imatrix;
    } else if (word == "--out") {
        options.folder = value;
    } else if (word == "--variant") {
        options.variants.push_back(variant_request(value));
    } else if (word == "--threads") {
        options.threads = int(std::min<uint64_t>(whole_number(word, value), 4096));
    } else if (word == "--memory") {
        options.memory = whole_number(word, value);
    } else if (word == "--source-digest") {
        options.source_digest = value;
    } else {
        throw Failure(Blame::user, "unknown option " + word + "\n" + usage);
    }
    return at + 1;
}

}  // namespace

Options parse_options(int argc, char ** argv) {
    const std::vector<std::string> words(argv + 1, argv + argc);
    Options options;
    for (size_t at = 0; at < words.size(); ++at) {
        if (words[at] == "--help") {
            std::fputs(usage, stdout);
            std::exit(0);
        }
        if (words[at] == "--list-types") {
            for (const std::string & name : file_type_names()) {
                std::puts(name.c_str());
            }
            std::exit(0);
        }
        if (words[at].rfind("--", 0) == 0) {
            at = take_option(options, words, at);
        } else if (options.input.empty()) {
            options.input = words[at];
        } else {
            throw Failure(Blame::user, "one input at a time: '" + words[at] + "' is a second one");
        }
    }
    check(options);
    options.threads = options.threads > 0 ? options.threads : usable_processors();
    return options;
}

}  // namespace ladder
