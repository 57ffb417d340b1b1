#include "skeleton.h"

#include <fcntl.h>
#include <unistd.h>

#include <vector>

#include "failure.h"
#include "llama.h"

namespace ladder {

namespace {

// Fewest rows that keep what llama.cpp's rules look at: the row length, the number of experts, how many dimensions.
int64_t skeleton_rows(const SourceTensor & tensor) {
    const bool flat = tensor.ne[2] == 1 && tensor.ne[3] == 1;
    return flat && tensor.ne[1] > 1 ? 2 : 1;
}

void write_part(const Source & source, size_t index, const std::string & path) {
    const size_t count = source.tensors().size();
    const GgmlOwner shapes(ggml_init(ggml_init_params{ggml_tensor_overhead() * (count + 1), nullptr, true}));
    const GgufOwner gguf(gguf_init_empty());
    gguf_set_kv(gguf.get(), source.files()[index].gguf.get());
    for (const SourceTensor & tensor : source.tensors()) {
        if (size_t(tensor.file) != index) {
            continue;
        }
        const int64_t ne[GGML_MAX_DIMS] = {tensor.ne[0], skeleton_rows(tensor), tensor.ne[2], tensor.ne[3]};
        ggml_tensor * small = ggml_new_tensor(shapes.get(), tensor.type, GGML_MAX_DIMS, ne);
        ggml_set_name(small, tensor.name.c_str());
        gguf_add_tensor(gguf.get(), small);
    }
    std::vector<char> header(gguf_get_meta_size(gguf.get()));
    gguf_get_meta_data(gguf.get(), header.data());
    uint64_t end = header.size();
    const int64_t n = gguf_get_n_tensors(gguf.get());
    if (n > 0) {
        end += gguf_get_tensor_offset(gguf.get(), n - 1) +
               GGML_PAD(gguf_get_tensor_size(gguf.get(), n - 1), gguf_get_alignment(gguf.get()));
    }
    const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (fd.get() < 0 || ::ftruncate(fd.get(), off_t(end)) != 0) {
        fail_errno("cannot create " + path);
    }
    write_at(fd, header.data(), header.size(), 0, path);
}

}  // namespace

std::string write_skeleton(const Source & source, const std::string & folder) {
    const int parts = int(source.files().size());
    std::string first;
    for (int i = 0; i < parts; ++i) {
        std::string path = folder + "/skeleton.gguf";
        if (parts > 1) {
            std::vector<char> text(folder.size() + 64);
            llama_split_path(text.data(), text.size(), (folder + "/skeleton").c_str(), i, parts);
            path = text.data();
        }
        write_part(source, size_t(i), path);
        first = i == 0 ? path : first;
    }
    return first;
}

}  // namespace ladder
