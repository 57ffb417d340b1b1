#include "trial.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <vector>

#include "failure.h"
#include "owned.h"
#include "rules.h"

namespace ladder {

namespace {

// Receives llama.cpp's log: kept for the parser, and printed for whoever reads a failure.
void keep_log(ggml_log_level, const char * text, void * kept) {
    static_cast<std::string *>(kept)->append(text);
    std::fputs(text, stderr);
}

uint32_t run_trial(const Trial & trial, const llama_model_quantize_params & params, bool keep_split) {
    std::string log;
    llama_log_set(keep_log, &log);
    llama_model_quantize_params dry = params;
    dry.dry_run = true;
    uint32_t status = llama_model_quantize(trial.input.c_str(), trial.base.c_str(), &dry);
    write_text_whole(trial.dry_log, log);
    if (status == 0) {
        const std::string result = keep_split ? trial.base : trial.base + ".gguf";
        status = llama_model_quantize(trial.skeleton.c_str(), result.c_str(), &params);
    }
    return status;
}

// ggml builds the search tables of the IQ types with OpenMP. Those that this process built before it forked left threads
// behind that the child does not have: it would wait for them for ever. ggml brings the OpenMP that it was built with, or none.
void without_openmp_threads() {
    if (void * found = ::dlsym(RTLD_DEFAULT, "omp_set_num_threads")) {
        reinterpret_cast<void (*)(int)>(found)(1);
    }
}

[[noreturn]] void be_child(const Options & options, const Trial & trial, pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(1);
    }
    const int out = ::open(trial.output.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    if (out < 0 || ::dup2(out, 1) < 0 || ::dup2(out, 2) < 0) {
        _exit(1);
    }
    without_openmp_threads();
    std::vector<std::string> args = options.tool_options;
    // The name only serves llama-quantize's own check that input and output differ.
    args.insert(args.end(), {options.input, trial.base + ".gguf", trial.file_type, "1"});
    int status = 1;
    try {
        status = as_llama_quantize(args, [&](const llama_model_quantize_params & params) {
            return run_trial(trial, params, options.keep_split);
        });
    } catch (const std::exception & error) {
        std::fprintf(stderr, "failed to quantize: %s\n", error.what());
    }
    std::fflush(nullptr);
    _exit(status);
}

std::string last_lines(const std::string & text, size_t most) {
    size_t at = text.find_last_not_of("\n") + 1;
    const size_t end = at;
    for (size_t lines = 0; at > 0 && lines < most; --at) {
        lines += text[at - 1] == '\n';
    }
    const size_t start = text.find_first_not_of("\n", at);
    return start < end ? text.substr(start, end - start) : "";
}

}  // namespace

int start_trial(const Options & options, const Trial & trial) {
    std::fflush(nullptr);
    const pid_t parent = getpid();
    const pid_t child = ::fork();
    if (child < 0) {
        fail_errno("cannot start a process");
    }
    if (child == 0) {
        be_child(options, trial, parent);
    }
    return child;
}

std::string trial_refusal(const Trial & trial, int status) {
    const std::string text = read_text(trial.output);
    const std::string mark = "failed to quantize: ";
    const size_t said = text.find(mark);
    if (WIFEXITED(status) && said != std::string::npos) {
        return text.substr(said + mark.size(), text.find('\n', said) - said - mark.size());
    }
    const size_t use = text.find("usage: ");
    if (use != std::string::npos) {
        return last_lines(text.substr(0, use), 3);
    }
    return (WIFSIGNALED(status) ? "llama.cpp aborted: " : "") + last_lines(text, 4);
}

}  // namespace ladder
