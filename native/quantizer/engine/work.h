// What has to be computed: each distinct (tensor, type) once, cut into chunks of rows.
#pragma once

#include <string>
#include <vector>

#include "plan.h"

namespace ladder {

// One output file of the pass and where its bytes go.
struct OpenFile {
    Variant *   variant;
    OutFile *   out;
    std::string path;   // staged
    Fd          fd;
    std::string key;    // of what the bytes come from, see staging.h
    std::string sha256; // set by the pass
    bool        resumed = false;  // a killed run left part of it
};

struct Sink {
    int      file;    // index into the open files
    uint64_t offset;  // where the tensor begins there
};

struct Target {
    ggml_type         type;
    std::vector<Sink> sinks;
    std::string       sha256;  // of the tensor's data, set by the pass
    bool              valid = true;  // llama.cpp's validation took the bytes
    bool              done = false;  // the bytes are in all files already, from a run that was killed
};

struct TensorWork {
    const SourceTensor * source;
    const float *        importance;  // ne[0] * ne[2] values, or none
    std::vector<Target>  targets;

    bool copies(const Target & target) const { return target.type == source->type; }
};

struct Chunk {
    int     tensor;  // index into the list of TensorWork
    int64_t row;
    int64_t rows;
};

// Merges the tensors of all open files, in file order. Throws a bug Failure when two files disagree on the order.
std::vector<TensorWork> merge_work(const Source & source, const ImportanceMatrix & matrix, std::vector<OpenFile> & files);

// Cuts each tensor into chunks of about `weights` weights; never across experts, which have their own importances.
std::vector<Chunk> cut_chunks(const std::vector<TensorWork> & work, int64_t weights);

// Bytes of buffers that a chunk needs while it is in flight.
uint64_t chunk_bytes(const TensorWork & work, int64_t rows);

}  // namespace ladder
