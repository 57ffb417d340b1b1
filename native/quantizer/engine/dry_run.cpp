#include "dry_run.h"

#include <cstdio>

#include "failure.h"

namespace ladder {

namespace {

[[noreturn]] void unread(const std::string & line) {
    throw Failure(Blame::build, "llama.cpp's dry run printed a line that this version of quantmint does not know how to read: " + line);
}

ggml_type type_named(const std::string & name, const std::string & line) {
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const char * known = ggml_type_name(ggml_type(i));
        if (known != nullptr && name == known) {
            return ggml_type(i);
        }
    }
    unread(line);
}

// The line's text up to `mark`, which must follow; `at` moves behind the mark.
std::string take_until(const std::string & line, size_t & at, const std::string & mark) {
    const size_t found = line.find(mark, at);
    if (found == std::string::npos) {
        unread(line);
    }
    const std::string text = line.substr(at, found - at);
    at = found + mark.size();
    return text;
}

std::string without_padding(const std::string & text) {
    const size_t first = text.find_first_not_of(' ');
    return first == std::string::npos ? "" : text.substr(first);
}

// One row of the table: "[  1/ 20] NAME - [shape], type = F, size = A MiB[ -> B MiB (T)]".
ggml_type row_type(const std::string & line, size_t at, const SourceTensor & tensor) {
    take_until(line, at, "], type = ");
    const ggml_type from = type_named(without_padding(take_until(line, at, ", size = ")), line);
    if (from != tensor.type) {
        unread(line);
    }
    take_until(line, at, " MiB");
    if (at == line.size()) {
        return from;
    }
    if (line.compare(at, 4, " -> ") != 0 || line.back() != ')') {
        unread(line);
    }
    const double said = std::stod(without_padding(line.substr(at + 4)));
    take_until(line, at, " MiB (");
    const ggml_type to = type_named(line.substr(at, line.size() - 1 - at), line);
    const double ours = double(ggml_row_size(to, tensor.ne[0])) * double(tensor.rows()) / (1 << 20);
    if (said < ours - 0.0051 || said > ours + 0.0051) {
        unread(line);
    }
    return to;
}

int fallback_count(const std::string & log) {
    const size_t mark = log.rfind("tensor(s) required fallback quantization");
    if (mark == std::string::npos) {
        return 0;
    }
    const size_t start = log.rfind("WARNING: ", mark);
    int count = 0;
    if (start == std::string::npos || std::sscanf(log.c_str() + start, "WARNING: %d of", &count) != 1) {
        unread(log.substr(mark, 80));
    }
    return count;
}

}  // namespace

DryRun parse_dry_run(const std::string & log, const Source & source, const std::vector<std::string> & names) {
    DryRun dry;
    size_t from = 0;
    for (size_t i = 0; i < names.size(); ++i) {
        char start[256];
        std::snprintf(start, sizeof start, "[%4d/%4d] %-36s - [", int(i + 1), int(names.size()), names[i].c_str());
        const size_t found = log.find(start, from);
        if (found == std::string::npos || (found > 0 && log[found - 1] != '\n')) {
            throw Failure(Blame::build, "llama.cpp's dry run does not list tensor " + names[i] + " where it would write it");
        }
        const size_t end = log.find('\n', found);
        const std::string line = log.substr(found, end - found);
        dry.types.push_back(row_type(line, std::string(start).size(), source.tensors()[size_t(source.find(names[i]))]));
        from = end;
    }
    dry.fallbacks = fallback_count(log);
    return dry;
}

}  // namespace ladder
