// The lattices of the IQ1, IQ2 and IQ3 types, as codes: a point's levels, BITS bits each, in one number.
// Included by sources of every instruction set: plain data only.
#pragma once

#include <cstdint>

struct qm_grid {
    // By code: a grid point's index, or, for a code off the grid, -1 - offset into `neighbours`.
    const int32_t * place;
    // The number of neighbours, then their codes in the order in which the reference tries them, the last one repeated
    // up to a multiple of QM_MAX_LANES.
    const uint16_t * neighbours;
};

enum class qm_lattice { iq1, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s };

// Built at the first call, then shared.
const qm_grid & qm_grid_of(qm_lattice lattice);
