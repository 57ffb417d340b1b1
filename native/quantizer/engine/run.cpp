#include "run.h"

#include <chrono>
#include <filesystem>

#include "failure.h"
#include "journal.h"
#include "json.h"
#include "parallel.h"
#include "pass.h"
#include "report.h"
#include "sha256.h"
#include "staging.h"

namespace ladder {

namespace {

class Stopwatch {
public:
    double lap() {
        const auto now = std::chrono::steady_clock::now();
        const double seconds = std::chrono::duration<double>(now - start_).count();
        start_ = now;
        return seconds;
    }

private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

void check_not_input(const Source & source, const OutFolder & folder, const std::vector<Variant> & variants) {
    for (const Variant & variant : variants) {
        for (const OutFile & file : variant.files) {
            for (const SourceFile & part : source.files()) {
                std::error_code missing;
                if (std::filesystem::equivalent(part.path, folder.final_path(file.name), missing)) {
                    throw Failure(Blame::user, "input and output files are the same: " + part.path);
                }
            }
        }
    }
}

// A digest of all that the bytes of `file` come from. Types, names and keys are in its header.
std::string file_key(const Options & options, const Source & source, const std::string & imatrix_digest, const OutFile & file) {
    std::string from = "quantmint-ladder 1\n" + std::string(ggml_version()) + " " + ggml_commit() + "\n";
    for (const SourceFile & part : source.files()) {
        from += (options.source_digest.empty() ? part.identity : options.source_digest) + "\n";
    }
    from += imatrix_digest + "\n";
    for (const std::string & word : options.tool_options) {
        from += word + "\n";
    }
    return sha256_hex(from + file.header);
}

// Files that an earlier run finished; they are told of at once.
std::vector<OpenFile> files_to_make(const Options & options, const Source & source, const OutFolder & folder,
                                    std::vector<Variant> & variants, Events & events) {
    const std::string imatrix_digest = options.imatrix.empty() ? "none" : file_sha256(options.imatrix);
    std::vector<OpenFile> files, unfinished;
    for (Variant & variant : variants) {
        for (OutFile & file : variant.files) {
            const std::string key = file_key(options, source, imatrix_digest, file);
            files.push_back({&variant, &file, folder.staged_path(file.name), Fd(), key, "", false});
        }
    }
    std::vector<Record> finished(files.size());
    for_each_index(files.size(), options.threads, [&](size_t i) {
        const Record record = folder.record(files[i].out->name);
        if (record.key == files[i].key && file_sha256(folder.final_path(files[i].out->name)) == record.sha256) {
            finished[i] = record;
        }
    });
    for (size_t i = 0; i < files.size(); ++i) {
        if (finished[i].key.empty()) {
            unfinished.push_back(std::move(files[i]));
        } else {
            events.emit(Json().text("event", "file").flag("reused", true).raw("file", finished[i].facts).object());
        }
    }
    return unfinished;
}

// Bytes that are held all the while: headers, importances, the plan.
uint64_t held_bytes(const std::vector<Variant> & variants, const ImportanceMatrix & matrix) {
    uint64_t bytes = 0;
    for (const auto & [name, values] : matrix) {
        bytes += values.size() * sizeof(float) + name.size();
    }
    for (const Variant & variant : variants) {
        for (const OutFile & file : variant.files) {
            bytes += file.header.size() + file.tensors.size() * sizeof(OutTensor);
        }
    }
    return bytes;
}

void publish_files(const OutFolder & folder, std::vector<OpenFile> & files, const std::vector<TensorWork> & work,
                   bool sync, Events & events) {
    for (size_t f = 0; f < files.size(); ++f) {
        OpenFile & file = files[f];
        if (!file.variant->failure.empty()) {
            folder.discard_staged(file.out->name);
            continue;
        }
        write_at(file.fd, file.out->header.data(), file.out->header.size(), 0, file.path);
        if (sync) {
            folder.sync_staged(file.fd, file.out->name);
        }
        const std::string facts = file_facts(file, int(f), work);
        folder.publish(file.out->name, {file.key, file.sha256, facts});
        events.emit(Json().text("event", "file").flag("reused", false).raw("file", facts).object());
    }
    folder.sync();
}

int tell_failures(const std::vector<Variant> & variants, Events & events) {
    int code = 0;
    for (const Variant & variant : variants) {
        if (!variant.failure.empty()) {
            events.emit(Json().text("event", "failed").text("variant", variant.file_type).text("message", variant.failure).object());
            code = int(Blame::source);
        }
    }
    return code;
}

// Staged files of a killed run go on being used when they were to become the same bytes.
void open_staged(const OutFolder & folder, const Journal & journal, std::vector<OpenFile> & files) {
    std::vector<std::string> kept;
    for (OpenFile & file : files) {
        if (journal.was_making(file.out->name, file.key)) {
            file.fd = folder.reopen_staged(file.out->name, file.out->size);
            file.resumed = file.fd.get() >= 0;
        }
        if (file.resumed) {
            kept.push_back(file.path);
        }
    }
    folder.sweep_staged(kept);
    uint64_t wanted = 0;
    for (const OpenFile & file : files) {
        wanted += file.resumed ? 0 : file.out->size;
    }
    folder.check_room(wanted);
    for (OpenFile & file : files) {
        if (!file.resumed) {
            file.fd = folder.create_staged(file.out->name, file.out->size);
        }
    }
}

struct Outcome {
    double    reserve = 0;
    PassTimes times;
    uint64_t  written = 0;
};

Outcome make_files(const Options & options, const Source & source, const ImportanceMatrix & matrix, const OutFolder & folder,
                   std::vector<OpenFile> & files, std::vector<TensorWork> & work, uint64_t held, Events & events) {
    Stopwatch watch;
    Journal journal(folder.journal_path());
    journal.load();
    open_staged(folder, journal, files);
    work = merge_work(source, matrix, files);
    journal.trust(work, files, options.threads);
    journal.begin(work, files);
    const double reserve = watch.lap();
    const uint64_t left = options.memory > held ? options.memory - held : 0;
    Pass pass(source, work, files, {options.threads, left},
              [&](const TensorWork & item, const Target & target) {
                  if (target.valid) {
                      journal.add(item, target);
                  }
              });
    {
        const Reporter reporter(events, pass);
        pass.run();
    }
    source.check_unchanged();
    return {reserve, pass.times(), pass.bytes_written()};
}

void discard_all(const OutFolder & folder, const std::vector<OpenFile> & files) {
    for (const OpenFile & file : files) {
        folder.discard_staged(file.out->name);
    }
}

}  // namespace

int run(const Options & options, Events & events) {
    Stopwatch watch;
    const Source source(options.input);
    const OutFolder folder(options.folder);
    std::vector<Variant> variants = plan_variants(options, source, folder.scratch());
    check_not_input(source, folder, variants);
    const ImportanceMatrix matrix = load_importance(options);
    Summary summary;
    summary.plan = watch.lap();
    std::vector<OpenFile> files = files_to_make(options, source, folder, variants, events);
    summary.check = watch.lap();
    std::vector<TensorWork> work;
    try {
        if (!files.empty()) {
            const Outcome outcome = make_files(options, source, matrix, folder, files, work, held_bytes(variants, matrix), events);
            summary.reserve = outcome.reserve;
            summary.times = outcome.times;
            summary.written = outcome.written;
        }
        summary.pass = watch.lap() - summary.reserve;
        publish_files(folder, files, work, options.sync, events);
    } catch (...) {
        discard_all(folder, files);
        Journal(folder.journal_path()).remove();
        throw;
    }
    Journal(folder.journal_path()).remove();
    summary.publish = watch.lap();
    const int code = tell_failures(variants, events);
    events.emit(summary_event(summary, options, work));
    return code;
}

}  // namespace ladder
