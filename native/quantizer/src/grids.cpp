// The reference's maps from any combination of levels to the points of a grid, and to the nearest points where the
// combination is no point itself: those at the two (or one, or three) smallest distances, by distance, then by index.
#include "grids.h"

#include <algorithm>
#include <vector>

#include "kernel.h"

#define GGML_COMMON_IMPL_CPP
#include "ggml-common.h"

namespace {

struct Grid {
    std::vector<int32_t> place;
    std::vector<uint16_t> neighbours;
};

// Level = rank of a coordinate among all values that occur.
std::vector<uint16_t> codes_of(const int8_t * coordinates, int points, int dims, int bits) {
    bool occurs[256] = {};
    for (int i = 0; i < points * dims; i++) occurs[128 + coordinates[i]] = true;
    int rank[256] = {};
    for (int v = 1; v < 256; v++) rank[v] = rank[v - 1] + occurs[v - 1];
    std::vector<uint16_t> codes((size_t) points);
    for (int p = 0; p < points; p++)
        for (int i = 0; i < dims; i++)
            codes[(size_t) p] |= (uint16_t) (rank[128 + coordinates[p * dims + i]] << bits * i);
    return codes;
}

int distance(int a, int b, int dims, int bits) {
    int d = 0;
    for (int i = 0; i < dims; i++) {
        const int mask = (1 << bits) - 1, step = (a >> bits * i & mask) - (b >> bits * i & mask);
        d += step * step;
    }
    return d;
}

bool possible(int code, int dims, int bits, int levels) {
    for (int i = 0; i < dims; i++)
        if ((code >> bits * i & ((1 << bits) - 1)) >= levels) return false;
    return true;
}

// Appends the neighbours of `code`: all points at the `shells` smallest distances.
void add_neighbours(const std::vector<uint16_t> & points, int code, int dims, int bits, int shells,
                    std::vector<uint16_t> & list) {
    std::vector<std::pair<int, int>> by_distance;
    for (size_t p = 0; p < points.size(); p++) by_distance.emplace_back(distance(code, points[p], dims, bits), (int) p);
    std::vector<int> distances;
    for (const auto & d : by_distance) distances.push_back(d.first);
    std::sort(distances.begin(), distances.end());
    distances.erase(std::unique(distances.begin(), distances.end()), distances.end());
    const int farthest = distances[std::min(distances.size(), (size_t) shells) - 1];
    by_distance.erase(std::remove_if(by_distance.begin(), by_distance.end(),
                                     [&](const auto & d) { return d.first > farthest; }), by_distance.end());
    std::sort(by_distance.begin(), by_distance.end());
    const size_t count = by_distance.size();
    list.push_back((uint16_t) count);
    for (const auto & d : by_distance) list.push_back(points[(size_t) d.second]);
    const uint16_t last = list.back();
    for (size_t i = count; i % QM_MAX_LANES != 0; i++) list.push_back(last);
}

template <class T, size_t POINTS> Grid build(const T (&table)[POINTS], int bits, int levels, int shells) {
    constexpr int DIMS = sizeof(T);
    const std::vector<uint16_t> points = codes_of((const int8_t *) table, (int) POINTS, DIMS, bits);
    Grid g;
    g.place.assign((size_t) 1 << bits * DIMS, INT32_MIN);
    for (size_t p = 0; p < POINTS; p++) g.place[points[p]] = (int32_t) p;
    for (int code = 0; code < 1 << bits * DIMS; code++) {
        if (g.place[(size_t) code] >= 0 || !possible(code, DIMS, bits, levels)) continue;
        g.place[(size_t) code] = -1 - (int32_t) g.neighbours.size();
        add_neighbours(points, code, DIMS, bits, shells, g.neighbours);
    }
    return g;
}

template <qm_lattice LATTICE, class... Args> const qm_grid & once(const Args &... args) {
    static Grid grid = build(args...);
    static const qm_grid view = {grid.place.data(), grid.neighbours.data()};
    return view;
}

}  // namespace

// Bits and number of a coordinate's levels, and how many distances count as near.
const qm_grid & qm_grid_of(qm_lattice lattice) {
    switch (lattice) {
        case qm_lattice::iq1: return once<qm_lattice::iq1>(iq1s_grid, 2, 3, 3);
        case qm_lattice::iq2_xxs: return once<qm_lattice::iq2_xxs>(iq2xxs_grid, 2, 3, 2);
        case qm_lattice::iq2_xs: return once<qm_lattice::iq2_xs>(iq2xs_grid, 2, 3, 2);
        case qm_lattice::iq2_s: return once<qm_lattice::iq2_s>(iq2s_grid, 2, 3, 1);
        case qm_lattice::iq3_xxs: return once<qm_lattice::iq3_xxs>(iq3xxs_grid, 3, 8, 2);
        default: return once<qm_lattice::iq3_s>(iq3s_grid, 3, 8, 3);
    }
}
