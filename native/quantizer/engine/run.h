// The whole run: plan, pass, files.
#pragma once

#include "events.h"
#include "options.h"

namespace ladder {

// Returns 0, or the exit code for variants that could not be made although others could. Throws a Failure.
int run(const Options & options, Events & events);

}  // namespace ladder
