#include "report.h"

#include <cstdlib>


#include "json.h"
#include "owned.h"
#include "quantmint_quant.h"
#include "sha256.h"

namespace ladder {

namespace {

const Target & target_of(const TensorWork & work, int file) {
    for (const Target & target : work.targets) {
        for (const Sink & sink : target.sinks) {
            if (sink.file == file) {
                return target;
            }
        }
    }
    return work.targets.front();
}

bool holds(const TensorWork & work, int file) {
    for (const Target & target : work.targets) {
        for (const Sink & sink : target.sinks) {
            if (sink.file == file) {
                return true;
            }
        }
    }
    return false;
}

}  // namespace

std::string file_facts(const OpenFile & file, int index, const std::vector<TensorWork> & work) {
    std::string tensors;
    uint64_t weights = 0, bytes = 0;
    size_t at = 0;
    for (const TensorWork & item : work) {
        if (!holds(item, index)) {
            continue;
        }
        const Target & target = target_of(item, index);
        const OutTensor & place = file.out->tensors[at++];
        weights += uint64_t(item.source->weights());
        bytes += place.size;
        Json tensor;
        tensor.text("name", item.source->name).text("type", ggml_type_name(target.type)).number("offset", place.offset);
        tensor.number("size", place.size).text("sha256", target.sha256);
        tensors += (tensors.empty() ? "" : ",") + tensor.object();
    }
    Json facts;
    facts.text("variant", file.variant->file_type).text("name", file.out->name).number("size", file.out->size);
    facts.text("sha256", file.sha256).number("header_size", file.out->header.size());
    facts.number("weights", weights).number("tensor_bytes", bytes).number("fallbacks", uint64_t(file.variant->fallbacks));
    return facts.raw("tensors", "[" + tensors + "]").object();
}

namespace {

// Highest resident memory of this program. (rusage would count what its parent held before it started this one.)
uint64_t peak_memory() {
    const std::string status = read_text("/proc/self/status");
    const size_t line = status.find("VmHWM:");
    return line == std::string::npos ? 0 : std::strtoull(status.c_str() + line + 6, nullptr, 10) * 1024;
}

}  // namespace

std::string summary_event(const Summary & summary, const Options & options, const std::vector<TensorWork> & work) {
    uint64_t distinct = 0, asked = 0, kept = 0;
    for (const TensorWork & item : work) {
        for (const Target & target : item.targets) {
            const uint64_t weights = item.copies(target) ? 0 : uint64_t(item.source->weights());
            asked += weights * target.sinks.size();
            (target.done ? kept : distinct) += weights;
        }
    }
    const PassTimes & times = summary.times;
    Json threads;
    threads.real("read", times.read).real("widen", times.widen).real("quantize", times.quantize);
    threads.real("write", times.write).real("hash", times.hash).real("idle", times.idle);
    Json event;
    event.text("event", "end").real("plan_seconds", summary.plan).real("check_seconds", summary.check);
    event.real("reserve_seconds", summary.reserve).real("pass_seconds", summary.pass).real("publish_seconds", summary.publish);
    event.raw("thread_seconds", threads.object()).number("threads", uint64_t(options.threads));
    event.number("bytes_written", summary.written).number("weights_asked", asked).number("weights_quantized", distinct);
    event.number("weights_kept", kept);
    event.number("peak_memory", peak_memory()).text("isa", quantmint_quant_isa());
    return event.text("sha256", sha256_path()).object();
}

}  // namespace ladder
