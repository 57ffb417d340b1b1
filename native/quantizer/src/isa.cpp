#include "isa.h"

#include <cstdlib>
#include <cstring>

#include "quantmint_quant.h"

namespace avx512 { qm_kernel_set kernel_set(); }
namespace avx2 { qm_kernel_set kernel_set(); }
namespace sse42 { qm_kernel_set kernel_set(); }
namespace neon { qm_kernel_set kernel_set(); }

namespace {

// No kernels at all: everything goes to ggml's own functions.
qm_kernel_set no_kernels() { return {"scalar", 1, nullptr, {}, 0}; }

struct Offer {
    const char * isa;
    bool (*runs_here)();
    qm_kernel_set (*kernels)();
};

#if defined(QM_X86)
// What GCC may emit for x86-64-v2, -v3 and -v4. The compiler's run-time support also checks that the operating system
// saves the registers.
bool runs_v2() {
    return __builtin_cpu_supports("sse3") && __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1") &&
           __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
}
bool runs_v3() {
    return runs_v2() && __builtin_cpu_supports("avx") && __builtin_cpu_supports("avx2") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c") &&
           __builtin_cpu_supports("fma") && __builtin_cpu_supports("lzcnt") && __builtin_cpu_supports("movbe");
}
bool runs_v4() {
    return runs_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif
bool runs_always() { return true; }

// Best first.
const Offer OFFERS[] = {
#if defined(QM_X86)
    {"avx512", runs_v4, avx512::kernel_set},
    {"avx2", runs_v3, avx2::kernel_set},
    {"sse42", runs_v2, sse42::kernel_set},
#elif defined(QM_ARM)
    {"neon", runs_always, neon::kernel_set},
#endif
    {"scalar", runs_always, no_kernels},
};
constexpr int OFFER_COUNT = sizeof OFFERS / sizeof *OFFERS;

qm_chosen choose(const Offer & offer) {
    qm_chosen chosen = {offer.kernels(), {}};
    for (int i = 0; i < chosen.set.count; i++) {
        const qm_kernel * kernel = chosen.set.kernels[i];
        chosen.kernel[kernel->type][kernel->imatrix] = kernel;
    }
    return chosen;
}

struct Available {
    qm_chosen chosen[OFFER_COUNT];
    int count = 0;
};

Available find_available() {
    Available found;
    for (const Offer & offer : OFFERS)
        if (offer.runs_here()) found.chosen[found.count++] = choose(offer);
    return found;
}

const Available & available() {
    static const Available found = find_available();
    return found;
}

int place_of(const char * isa) {
    for (int i = 0; i < OFFER_COUNT; i++)
        if (strcmp(isa, OFFERS[i].isa) == 0) return i;
    return 0;
}

// The best that is no better than what QUANTMINT_QUANT_ISA names.
const qm_chosen * choose_best() {
    const char * wanted = getenv("QUANTMINT_QUANT_ISA");
    const int limit = wanted ? place_of(wanted) : 0;
    int i = 0;
    while (place_of(available().chosen[i].set.isa) < limit) i++;
    return &available().chosen[i];
}

}  // namespace

const qm_chosen & qm_in_use() {
    static const qm_chosen * const best = choose_best();
    return *best;
}

const qm_chosen * qm_available(int index) { return index < available().count ? &available().chosen[index] : nullptr; }

const char * quantmint_quant_isa(void) { return qm_in_use().set.isa; }

bool quantmint_quant_has_kernel(enum ggml_type type, bool imatrix) {
    return type >= 0 && type < GGML_TYPE_COUNT && qm_in_use().kernel[type][imatrix] != nullptr;
}
