// quantmint-quant-verify: quantizes hostile and ordinary weights with ggml and with every kernel set, compares bytes.
// Exit status 1 on a difference; the first is printed, or, with --count, their number. With --digest it prints digests
// of our bytes instead, to be compared with another machine's; with --which, the instruction set that the library uses.
#include <chrono>
#include <cstdio>
#include <thread>

#include "compare.h"
#include "options.h"
#include "quantmint_quant.h"

namespace {

bool has_kernel(const std::vector<const qm_chosen *> & sets, enum ggml_type type, bool imatrix) {
    for (const qm_chosen * set : sets)
        if (set->kernel[type][imatrix] != nullptr) return true;
    return false;
}

bool verify(const Task & task, int threads) {
    const auto start = std::chrono::steady_clock::now();
    Outcome outcome;
    std::vector<std::thread> workers;
    for (int t = 0; t < threads; t++) workers.emplace_back([&, t] { compare(task, t, threads, outcome); });
    for (std::thread & worker : workers) worker.join();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::string isas;
    for (const qm_chosen * set : task.sets) isas += std::string(isas.empty() ? "" : " ") + set->set.isa;
    printf("%-8s %-15s %10lld blocks  %s  %6.1f s  %lld differ%s\n", ggml_type_name(task.type),
           task.imatrix ? "with imatrix" : "without imatrix", (long long) outcome.blocks, isas.c_str(), seconds,
           (long long) outcome.different,
           has_kernel(task.sets, task.type, task.imatrix) ? "" : "  (no kernel: ggml's own)");
    fflush(stdout);
    return outcome.different == 0;
}

// ggml's searches on a grid abort the process where a distance is no number, so those types get none that make one.
Hostility hostility_of(enum ggml_type type, Hostility most) {
    switch (type) {
        case GGML_TYPE_IQ1_S: case GGML_TYPE_IQ1_M: case GGML_TYPE_IQ2_XXS: case GGML_TYPE_IQ2_XS:
        case GGML_TYPE_IQ2_S: case GGML_TYPE_IQ3_XXS: case GGML_TYPE_IQ3_S:
            return most == Hostility::all ? Hostility::portable : most;
        default: return most;
    }
}

}  // namespace

int main(int argc, char ** argv) {
    Options o = parse_options(argc, argv);
    if (o.which) {
        printf("%s\n", quantmint_quant_isa());
        return 0;
    }
    // What platforms may differ in says nothing about the kernels.
    if (o.digest && o.most == Hostility::all) o.most = Hostility::portable;
    // Where there are kernels, comparing ggml with itself as well would only take time.
    while (!o.digest && o.sets.size() > 1 && o.sets.back()->set.count == 0) o.sets.pop_back();
    bool good = true;
    for (const enum ggml_type type : o.types) {
        ggml_quantize_init(type);
        std::vector<bool> modes;
        for (const bool imatrix : o.imatrix)
            if (imatrix || !ggml_quantize_requires_imatrix(type)) modes.push_back(imatrix);
        for (const bool imatrix : modes) {
            const int64_t share = (o.blocks + (int64_t) modes.size() - 1) / (int64_t) modes.size();
            const Task task = {type,   imatrix, hostility_of(type, o.most), share, o.seconds, o.seed, o.sets,
                               o.count, o.sabotage};
            if (!o.digest) {
                good = verify(task, o.threads) && good;
                continue;
            }
            for (const qm_chosen * set : o.sets)
                printf("%-8s %-15s %s %016llx\n", ggml_type_name(type), imatrix ? "with imatrix" : "without imatrix",
                       set->set.isa, (unsigned long long) digest(task, *set));
        }
    }
    return good ? 0 : 1;
}
