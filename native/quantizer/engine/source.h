// The input model: one GGUF file or all parts of a split one, read through positions, never mapped.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "owned.h"

namespace ladder {

struct SourceTensor {
    std::string name;
    ggml_type   type;
    int64_t     ne[GGML_MAX_DIMS];
    int         file;      // index of the part that holds it
    uint64_t    offset;    // from the start of that part, bytes
    uint64_t    size;      // bytes

    int64_t rows() const { return ne[1] * ne[2] * ne[3]; }
    int64_t weights() const { return ne[0] * rows(); }
};

struct SourceFile {
    std::string path;
    Fd          fd;
    GgufOwner   gguf;
    std::string identity;  // changes when the file does: size, time of change, digest of the header
};

class Source {
public:
    // Throws a source Failure for a file that ggml does not read as GGUF, a user Failure for one that cannot be opened.
    explicit Source(const std::string & path);

    const std::vector<SourceFile> &   files() const { return files_; }
    const std::vector<SourceTensor> & tensors() const { return tensors_; }
    int  find(const std::string & name) const;  // -1 when there is none
    void read(const SourceTensor & tensor, uint64_t begin, size_t size, void * data) const;
    void will_need(const SourceTensor & tensor, uint64_t begin, size_t size) const;
    // Throws when a part was replaced or changed since it was opened.
    void check_unchanged() const;

private:
    void open_part(const std::string & path);

    std::vector<SourceFile>              files_;
    std::vector<SourceTensor>            tensors_;
    std::unordered_map<std::string, int> by_name_;
};

}  // namespace ladder
