#include "failure.h"

#include <cerrno>
#include <cstring>

namespace ladder {

void fail_errno(const std::string & what) {
    throw Failure(Blame::user, what + ": " + std::strerror(errno));
}

}  // namespace ladder
