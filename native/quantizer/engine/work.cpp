#include "work.h"

#include <algorithm>
#include <unordered_map>

#include "failure.h"

namespace ladder {

namespace {

// llama.cpp uses an entry only when its length fits; it refuses other lengths itself, except for token embeddings.
const float * importance_of(const ImportanceMatrix & matrix, const SourceTensor & tensor) {
    const auto found = matrix.find(tensor.name);
    if (found == matrix.end() || found->second.size() != size_t(tensor.ne[0] * tensor.ne[2])) {
        return nullptr;
    }
    return found->second.data();
}

void add_sink(TensorWork & work, const OutTensor & tensor, int file) {
    for (Target & target : work.targets) {
        if (target.type == tensor.type) {
            target.sinks.push_back({file, tensor.offset});
            return;
        }
    }
    work.targets.push_back({tensor.type, {{file, tensor.offset}}, "", true, false});
}

}  // namespace

std::vector<TensorWork> merge_work(const Source & source, const ImportanceMatrix & matrix, std::vector<OpenFile> & files) {
    std::vector<TensorWork> work;
    std::unordered_map<int, size_t> place;
    for (size_t f = 0; f < files.size(); ++f) {
        size_t last = 0;
        for (const OutTensor & tensor : files[f].out->tensors) {
            const SourceTensor & from = source.tensors()[size_t(tensor.source)];
            const auto [found, added] = place.emplace(tensor.source, work.size());
            if (added) {
                work.push_back({&from, importance_of(matrix, from), {}});
            }
            if (found->second < last) {
                throw Failure(Blame::bug, "the variants order their tensors differently, at " + from.name);
            }
            last = found->second;
            add_sink(work[last], tensor, int(f));
        }
    }
    return work;
}

std::vector<Chunk> cut_chunks(const std::vector<TensorWork> & work, int64_t weights) {
    std::vector<Chunk> chunks;
    for (size_t t = 0; t < work.size(); ++t) {
        const SourceTensor & tensor = *work[t].source;
        const int64_t most = std::max<int64_t>(1, weights / std::max<int64_t>(1, tensor.ne[0]));
        for (int64_t row = 0; row < tensor.rows();) {
            int64_t rows = std::min(most, tensor.rows() - row);
            if (work[t].importance != nullptr) {
                rows = std::min(rows, tensor.ne[1] - row % tensor.ne[1]);
            }
            chunks.push_back({int(t), row, rows});
            row += rows;
        }
    }
    return chunks;
}

uint64_t chunk_bytes(const TensorWork & work, int64_t rows) {
    const int64_t width = work.source->ne[0];
    uint64_t bytes = ggml_row_size(work.source->type, width) * uint64_t(rows) + 64;
    for (const Target & target : work.targets) {
        bytes += work.copies(target) ? 0 : ggml_row_size(target.type, width) * uint64_t(rows) + 64;
    }
    return bytes;
}

}  // namespace ladder
