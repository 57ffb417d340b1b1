// quantmint-quant-bench: each type alone, on one core: ggml_quantize_chunk against every kernel set.
// Weights per second, medians of several runs, in turns so that a busy machine hurts all alike.
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "cases.h"
#include "options.h"

namespace {

constexpr int64_t PER_ROW = 3072;

struct Weights {
    std::vector<float> x, importances;
    int64_t rows;
};

// Normal deviates as half-precision files hold them.
Weights make(uint64_t seed, int64_t rows) {
    Random random(seed);
    Weights w = {std::vector<float>((size_t) (rows * PER_ROW)), std::vector<float>(PER_ROW), rows};
    for (float & x : w.x) x = ggml_fp16_to_fp32(ggml_fp32_to_fp16(0.02f * random.normal()));
    for (float & i : w.importances) {
        const float z = random.normal();
        i = z * z + 1e-3f;
    }
    return w;
}

// Seconds for one run over the first `rows` rows.
double run(const qm_chosen & set, enum ggml_type type, const Weights & w, int64_t rows, bool imatrix,
           std::vector<uint8_t> & out) {
    const auto start = std::chrono::steady_clock::now();
    qm_quantize_rows(set, type, w.x.data(), out.data(), rows, PER_ROW, imatrix ? w.importances.data() : nullptr);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

// Millions of weights per second of each set, each given about `seconds` in all.
std::vector<double> speeds(const Options & o, enum ggml_type type, const Weights & w, bool imatrix) {
    constexpr int RUNS = 7;
    std::vector<uint8_t> out(ggml_row_size(type, PER_ROW) * (size_t) w.rows);
    std::vector<int64_t> rows;
    for (const qm_chosen * set : o.sets) {
        run(*set, type, w, 16, imatrix, out);
        const double one = run(*set, type, w, 16, imatrix, out) / 16;
        const double wanted = (o.seconds > 0 ? o.seconds : 0.7) / RUNS / one;
        rows.push_back(std::max<int64_t>(16, std::min<int64_t>(w.rows, (int64_t) wanted) / 16 * 16));
    }
    std::vector<std::vector<double>> times(o.sets.size());
    for (int i = 0; i < RUNS; i++)
        for (size_t s = 0; s < o.sets.size(); s++)
            times[s].push_back(run(*o.sets[s], type, w, rows[s], imatrix, out) / (double) rows[s]);
    std::vector<double> result;
    for (const std::vector<double> & t : times) result.push_back((double) PER_ROW / median(t) * 1e-6);
    return result;
}

void print(const Options & o, enum ggml_type type, bool imatrix, const std::vector<double> & speed, bool first) {
    const double ggml = speed.back();
    if (o.json) {
        printf("%s{\"type\": \"%s\", \"imatrix\": %s", first ? "[" : ",\n ", ggml_type_name(type),
               imatrix ? "true" : "false");
        for (size_t s = 0; s < o.sets.size(); s++)
            printf(", \"%s\": %.2f", s + 1 == o.sets.size() ? "ggml" : o.sets[s]->set.isa, speed[s]);
        printf("}");
        return;
    }
    printf("%-8s %-8s", ggml_type_name(type), imatrix ? "imatrix" : "plain");
    for (size_t s = 0; s + 1 < o.sets.size(); s++)
        printf("  %s %8.1f (%5.1fx)", o.sets[s]->set.isa, speed[s], speed[s] / ggml);
    printf("  ggml %8.2f\n", ggml);
    fflush(stdout);
}

}  // namespace

int main(int argc, char ** argv) {
    Options o = parse_options(argc, argv);
    // ggml's own functions are the measure of all.
    while (o.sets.back()->set.count == 0 && o.sets.size() > 1) o.sets.pop_back();
    for (int i = 0; qm_available(i) != nullptr; i++)
        if (qm_available(i)->set.count == 0) o.sets.push_back(qm_available(i));
    const Weights w = make(o.seed, 2048);
    if (!o.json) printf("millions of weights per second on one core (and times ggml)\n");
    bool first = true;
    for (const enum ggml_type type : o.types) {
        ggml_quantize_init(type);
        for (const bool imatrix : o.imatrix) {
            if (!imatrix && ggml_quantize_requires_imatrix(type)) continue;
            print(o, type, imatrix, speeds(o, type, w, imatrix), first);
            first = false;
        }
    }
    if (o.json) printf("]\n");
    return 0;
}
