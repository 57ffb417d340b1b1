#include "plan.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "dry_run.h"
#include "failure.h"
#include "parallel.h"
#include "rules.h"
#include "skeleton.h"
#include "trial.h"

namespace ladder {

namespace {

std::vector<Trial> make_trials(const Options & options, const Source & source, const std::string & folder) {
    const std::string skeleton = write_skeleton(source, folder);
    std::vector<Trial> trials;
    for (const VariantRequest & request : options.variants) {
        const std::string base = folder + "/" + std::to_string(trials.size());
        trials.push_back({request.file_type, options.input, skeleton, base, base + ".dry", base + ".out"});
    }
    return trials;
}

// Children that still run are left to the death of this process.
void run_trials(const Options & options, const std::vector<Trial> & trials) {
    std::map<pid_t, const Trial *> running;
    size_t next = 0;
    while (next < trials.size() || !running.empty()) {
        if (next < trials.size() && running.size() < size_t(options.threads)) {
            running[start_trial(options, trials[next])] = &trials[next];
            ++next;
            continue;
        }
        int status = 0;
        const pid_t ended = ::waitpid(-1, &status, 0);
        if (ended < 0 && errno == EINTR) {
            continue;
        }
        const auto found = running.find(ended);
        if (found == running.end()) {
            throw Failure(Blame::bug, "waited for a process that was never started");
        }
        if (status != 0) {
            const Trial & trial = *found->second;
            throw Failure(WIFSIGNALED(status) ? Blame::build : Blame::user,
                          "llama.cpp refuses " + trial.file_type + ": " + trial_refusal(trial, status));
        }
        running.erase(found);
    }
}

std::string split_name(const std::string & stem, int index, int count) {
    std::vector<char> text(stem.size() + 64);
    llama_split_path(text.data(), text.size(), stem.c_str(), index, count);
    return text.data();
}

// The file that llama.cpp made of the skeleton, blown up to the real shapes.
OutFile grow(const Source & source, const std::string & path, const std::string & name) {
    const GgufOwner small(gguf_init_from_file(path.c_str(), gguf_init_params{true, nullptr}));
    if (!small) {
        throw Failure(Blame::build, "llama.cpp wrote a skeleton that it cannot read: " + path);
    }
    const int64_t count = gguf_get_n_tensors(small.get());
    const GgmlOwner shapes(ggml_init(ggml_init_params{ggml_tensor_overhead() * size_t(count + 1), nullptr, true}));
    const GgufOwner whole(gguf_init_empty());
    gguf_set_kv(whole.get(), small.get());
    OutFile file;
    file.name = name;
    for (int64_t i = 0; i < count; ++i) {
        const char * tensor_name = gguf_get_tensor_name(small.get(), i);
        const int index = source.find(tensor_name);
        if (index < 0) {
            throw Failure(Blame::build, std::string("llama.cpp made up a tensor: ") + tensor_name);
        }
        const ggml_type type = gguf_get_tensor_type(small.get(), i);
        ggml_tensor * tensor = ggml_new_tensor(shapes.get(), type, GGML_MAX_DIMS, source.tensors()[size_t(index)].ne);
        ggml_set_name(tensor, tensor_name);
        gguf_add_tensor(whole.get(), tensor);
        file.tensors.push_back({index, type, gguf_get_tensor_offset(whole.get(), i), ggml_nbytes(tensor)});
    }
    file.header.resize(gguf_get_meta_size(whole.get()));
    gguf_get_meta_data(whole.get(), file.header.data());
    return file;
}

// llama-quantize writes the data one after another, each padded to ggml's default alignment. Where a file asks for
// another alignment, its table would point elsewhere: such a file is not worth making.
void place_tensors(OutFile & file) {
    uint64_t at = file.header.size();
    for (OutTensor & tensor : file.tensors) {
        if (file.header.size() + tensor.offset != at) {
            throw Failure(Blame::user, "general.alignment of the input is not " + std::to_string(GGUF_DEFAULT_ALIGNMENT) +
                          ": llama-quantize would write a file whose offsets do not fit its data");
        }
        tensor.offset = at;
        at += GGML_PAD(tensor.size, GGUF_DEFAULT_ALIGNMENT);
    }
    file.size = at;
}

void check_against_dry_run(Variant & variant, const Trial & trial, const Source & source) {
    std::vector<std::string> names;
    std::vector<ggml_type> types;
    for (const OutFile & file : variant.files) {
        for (const OutTensor & tensor : file.tensors) {
            names.push_back(source.tensors()[size_t(tensor.source)].name);
            types.push_back(tensor.type);
        }
    }
    const DryRun dry = parse_dry_run(read_text(trial.dry_log), source, names);
    if (names.size() != source.tensors().size() || dry.types != types) {
        throw Failure(Blame::build, "llama.cpp plans " + variant.file_type + " differently for the model and for its skeleton");
    }
    variant.fallbacks = dry.fallbacks;
}

// Expert matrices are 3-D; nothing in llama.cpp quantizes a fourth dimension.
void check_dimensions(const Variant & variant, const Source & source) {
    for (const OutFile & file : variant.files) {
        for (const OutTensor & tensor : file.tensors) {
            const SourceTensor & from = source.tensors()[size_t(tensor.source)];
            if (from.ne[3] > 1 && from.type != tensor.type) {
                throw Failure(Blame::user, "llama-quantize does not quantize 4-D tensors: " + from.name);
            }
        }
    }
}

Variant variant_of(const Trial & trial, const VariantRequest & request, bool keep_split, const Source & source) {
    const std::string stem = request.file_name.substr(0, request.file_name.size() - 5);
    Variant variant;
    variant.file_type = request.file_type;
    const int parts = keep_split ? int(source.files().size()) : 1;
    for (int part = 0; part < parts; ++part) {
        const std::string made = keep_split ? split_name(trial.base, part, parts) : trial.base + ".gguf";
        variant.files.push_back(grow(source, made, keep_split ? split_name(stem, part, parts) : request.file_name));
        place_tensors(variant.files.back());
    }
    check_dimensions(variant, source);
    check_against_dry_run(variant, trial, source);
    return variant;
}

}  // namespace

std::vector<Variant> plan_variants(const Options & options, const Source & source, const std::string & folder) {
    const std::vector<Trial> trials = make_trials(options, source, folder);
    for (const Trial & trial : trials) {
        prepare_tables(trial.file_type);
    }
    run_trials(options, trials);
    std::vector<Variant> variants(trials.size());
    for_each_index(trials.size(), options.threads, [&](size_t i) {
        variants[i] = variant_of(trials[i], options.variants[i], options.keep_split, source);
    });
    return variants;
}

ImportanceMatrix load_importance(const Options & options) {
    ImportanceMatrix matrix;
    if (options.imatrix.empty()) {
        return matrix;
    }
    std::vector<std::string> args = options.tool_options;
    args.insert(args.end(), {options.input, "unused.gguf", options.variants[0].file_type});
    as_llama_quantize(args, [&](const llama_model_quantize_params & params) {
        for (const llama_model_imatrix_data * row = params.imatrix; row != nullptr && row->name != nullptr; ++row) {
            matrix.emplace(row->name, std::vector<float>(row->data, row->data + row->size));
        }
        return 0u;
    });
    return matrix;
}

}  // namespace ladder
