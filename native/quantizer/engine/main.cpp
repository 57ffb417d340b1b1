// quantmint-ladder: every variant of a model in one pass over it, with the bytes that llama-quantize gives.

#include <csignal>
#include <cstdio>
#include <exception>

#include "events.h"
#include "failure.h"
#include "json.h"
#include "run.h"

int main(int argc, char ** argv) {
    // A limit on file sizes is an error like a full disk, not a signal; a closed pipe is no reason to stop.
    std::signal(SIGXFSZ, SIG_IGN);
    std::signal(SIGPIPE, SIG_IGN);
    std::string what;
    int code = 0;
    try {
        const ladder::Options options = ladder::parse_options(argc, argv);
        ladder::Events events;
        try {
            return ladder::run(options, events);
        } catch (const ladder::Failure & failure) {
            code = int(failure.blame);
            what = failure.what();
        } catch (const std::exception & error) {
            code = int(ladder::Blame::bug);
            what = error.what();
        }
        events.emit(ladder::Json().text("event", "error").number("code", uint64_t(code)).text("message", what).object());
    } catch (const ladder::Failure & failure) {
        code = int(failure.blame);
        what = failure.what();
    }
    std::fprintf(stderr, "quantmint-ladder: %s\n", what.c_str());
    return code;
}
