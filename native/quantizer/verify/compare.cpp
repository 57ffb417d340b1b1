#include "compare.h"

#include <chrono>
#include <cstdio>
#include <cstring>
#include <mutex>

namespace {

// One call's worth of rows, with its importances.
struct Batch {
    int64_t nrows, n_per_row;
    std::vector<float> x, importances;
};

// Rows of every length and number: one block, odd numbers of blocks, whole groups of lanes, a little more.
Batch make_batch(const Task & task, Random & random, int64_t most_blocks) {
    static const int64_t LENGTHS[] = {1, 1, 2, 3, 5, 7, 8, 9, 12, 16, 17, 20, 31, 32, 33};
    const int64_t block = ggml_blck_size(task.type);
    int64_t per_row = LENGTHS[random.below(15)];
    if (per_row > most_blocks) per_row = most_blocks;
    const int64_t rows = 1 + random.below(40), fit = most_blocks / per_row;
    Batch b = {rows < fit ? rows : fit, per_row * block, {}, {}};
    b.x.resize((size_t) (b.nrows * b.n_per_row));
    for (int64_t row = 0; row < b.nrows; row++)
        make_weights(random, task.hostility, (int) block, b.x.data() + row * b.n_per_row, b.n_per_row);
    if (task.imatrix) {
        b.importances.resize((size_t) b.n_per_row);
        make_importances(random, task.hostility, b.importances.data(), b.n_per_row);
    }
    return b;
}

const float * importances(const Batch & b) { return b.importances.empty() ? nullptr : b.importances.data(); }

void print_bytes(const char * who, const uint8_t * bytes, size_t n) {
    printf("%s", who);
    for (size_t i = 0; i < n; i++) printf("%02x", bytes[i]);
    printf("\n");
}

void print_floats(const char * what, const float * f, int64_t n) {
    printf("%s", what);
    for (int64_t i = 0; i < n; i++) printf("%a%s", f[i], i + 1 == n ? "\n" : " ");
}

void report(const Task & task, const qm_chosen & set, const Batch & b, const uint8_t * ours, const uint8_t * theirs) {
    const size_t size = ggml_type_size(task.type);
    const int64_t block = ggml_blck_size(task.type), per_row = b.n_per_row / block;
    int64_t i = 0;
    while (memcmp(ours + i * size, theirs + i * size, size) == 0) i++;
    printf("DIFFERS: %s %s imatrix, %s, seed %llu: block %lld of row %lld (%lld rows of %lld weights)\n",
           ggml_type_name(task.type), task.imatrix ? "with" : "without", set.set.isa, (unsigned long long) task.seed,
           (long long) (i % per_row), (long long) (i / per_row), (long long) b.nrows, (long long) b.n_per_row);
    print_bytes("ours   ", ours + i * size, size);
    print_bytes("ggml's ", theirs + i * size, size);
    print_floats("weights ", b.x.data() + i * block, block);
    if (task.imatrix) print_floats("importances ", b.importances.data() + i % per_row * block, block);
    fflush(stdout);
}

int64_t different_blocks(const Task & task, const std::vector<uint8_t> & ours, const std::vector<uint8_t> & theirs) {
    const size_t size = ggml_type_size(task.type);
    int64_t count = 0;
    for (size_t i = 0; i + size < ours.size(); i += size) count += memcmp(&ours[i], &theirs[i], size) != 0;
    return count;
}

// The number of blocks in which a kernel set's bytes are not `theirs`.
int64_t differences(const Task & task, const Batch & b, std::vector<uint8_t> & ours,
                    const std::vector<uint8_t> & theirs, Outcome & outcome) {
    static std::mutex printing;
    int64_t found = 0;
    for (const qm_chosen * set : task.sets) {
        memset(ours.data(), 0xa5, ours.size());
        const size_t n =
            qm_quantize_rows(*set, task.type, b.x.data(), ours.data(), b.nrows, b.n_per_row, importances(b));
        if (task.sabotage && b.nrows > 20) ours[ours.size() / 2] ^= 4;
        if (n == ours.size() - 1 && memcmp(ours.data(), theirs.data(), ours.size()) == 0) continue;
        const std::lock_guard<std::mutex> lock(printing);
        if (n != ours.size() - 1 || ours.back() != 0xa5) {
            printf("DIFFERS: %s: returned %zu, or wrote past its end\n", ggml_type_name(task.type), n);
            return found + 1;
        }
        found += different_blocks(task, ours, theirs);
        if (task.count) continue;
        if (outcome.different == 0) report(task, *set, b, ours.data(), theirs.data());
        outcome.different += found;   // while no other thread can print
        return 0;
    }
    return found;
}

}  // namespace

void compare(const Task & task, int thread, int threads, Outcome & outcome) {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    Random random(task.seed * 1000003u + (uint64_t) thread);
    std::vector<uint8_t> ours, theirs;
    for (int64_t left = (task.blocks + threads - 1) / threads; left > 0 && (task.count || outcome.different == 0);) {
        if (task.seconds > 0 && std::chrono::duration<double>(Clock::now() - start).count() > task.seconds) break;
        const Batch b = make_batch(task, random, left);
        const int64_t blocks = b.nrows * b.n_per_row / ggml_blck_size(task.type);
        // One byte more than is to be written, to see that nothing else is.
        const size_t size = (size_t) blocks * ggml_type_size(task.type) + 1;
        ours.resize(size);
        theirs.assign(size, 0xa5);
        ggml_quantize_chunk(task.type, b.x.data(), theirs.data(), 0, b.nrows, b.n_per_row, importances(b));
        outcome.different += differences(task, b, ours, theirs, outcome);
        outcome.blocks += blocks;
        left -= blocks;
    }
}

uint64_t digest(const Task & task, const qm_chosen & set) {
    Random random(task.seed);
    uint64_t hash = 0xcbf29ce484222325ull;   // FNV-1a
    for (int64_t left = task.blocks; left > 0;) {
        const Batch b = make_batch(task, random, left);
        const int64_t blocks = b.nrows * b.n_per_row / ggml_blck_size(task.type);
        std::vector<uint8_t> bytes((size_t) blocks * ggml_type_size(task.type));
        qm_quantize_rows(set, task.type, b.x.data(), bytes.data(), b.nrows, b.n_per_row, importances(b));
        for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3ull;
        left -= blocks;
    }
    return hash;
}
