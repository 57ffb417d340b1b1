// Errors sorted by who must act; the exit codes are those of quantmint's own command line.
#pragma once

#include <stdexcept>
#include <string>

namespace ladder {

enum class Blame : int {
    user   = 2,   // arguments, memory, disk
    source = 3,   // the input file is not what it claims
    build  = 4,   // llama.cpp's tool failed in a way nobody foresaw
    bug    = 70,  // this program broke a promise of its own
};

class Failure : public std::runtime_error {
public:
    Failure(Blame blame, const std::string & what) : std::runtime_error(what), blame(blame) {}
    Blame blame;
};

// Throws a user Failure with errno's text: "<what>: No space left on device".
[[noreturn]] void fail_errno(const std::string & what);

}  // namespace ladder
