// Our bytes against ggml's.
#pragma once

#include <atomic>
#include <vector>

#include "cases.h"
#include "isa.h"

struct Task {
    enum ggml_type type;
    bool imatrix;
    Hostility hostility;
    int64_t blocks;   // of the type's own size; each is compared for every kernel set
    double seconds;   // stop after that long, 0 for never
    uint64_t seed;
    std::vector<const qm_chosen *> sets;
    bool count;       // count the blocks that differ instead of ending at the first
    bool sabotage;    // change one bit of our bytes now and then, which must be seen
};

struct Outcome {
    std::atomic<int64_t> blocks{0};
    std::atomic<int64_t> different{0};
};

// Rows of random shape and kind, as thread `thread` of `threads`, until enough blocks are compared.
// Unless they are to be counted, the first difference is printed and ends all threads.
void compare(const Task & task, int thread, int threads, Outcome & outcome);

// A digest of our bytes for task.blocks blocks, equal on every machine and for every kernel set.
uint64_t digest(const Task & task, const qm_chosen & set);
