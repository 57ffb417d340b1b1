#include "json.h"

#include <cstdio>

namespace ladder {

namespace {

// Length of the well-formed UTF-8 sequence at `at`, 0 when there is none.
size_t utf8_length(const std::string & text, size_t at) {
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char lead = byte(at);
    const size_t length = lead < 0x80 ? 1 : lead >= 0xC2 && lead < 0xE0 ? 2 : lead >= 0xE0 && lead < 0xF0 ? 3
                        : lead >= 0xF0 && lead < 0xF5 ? 4 : 0;
    if (length == 0 || at + length > text.size()) {
        return 0;
    }
    for (size_t i = 1; i < length; ++i) {
        if ((byte(at + i) & 0xC0) != 0x80) {
            return 0;
        }
    }
    const bool surrogate = lead == 0xED && byte(at + 1) >= 0xA0;
    const bool overlong  = (lead == 0xE0 && byte(at + 1) < 0xA0) || (lead == 0xF0 && byte(at + 1) < 0x90);
    const bool beyond    = lead == 0xF4 && byte(at + 1) >= 0x90;
    return surrogate || overlong || beyond ? 0 : length;
}

}  // namespace

std::string json_quote(const std::string & text) {
    std::string quoted = "\"";
    for (size_t i = 0; i < text.size();) {
        const char c = text[i];
        const size_t length = utf8_length(text, i);
        if (length == 0) {
            quoted += "\\ufffd";
            ++i;
        } else if (length > 1) {
            quoted.append(text, i, length);
            i += length;
        } else {
            char escape[8];
            if (c == '"' || c == '\\') {
                quoted += '\\';
                quoted += c;
            } else if (static_cast<unsigned char>(c) < 0x20) {
                std::snprintf(escape, sizeof escape, "\\u%04x", c);
                quoted += escape;
            } else {
                quoted += c;
            }
            ++i;
        }
    }
    return quoted + "\"";
}

void Json::key(const char * name) {
    if (!body_.empty()) {
        body_ += ",";
    }
    body_ += json_quote(name) + ":";
}

Json & Json::text(const char * name, const std::string & value) {
    key(name);
    body_ += json_quote(value);
    return *this;
}

Json & Json::number(const char * name, uint64_t value) {
    key(name);
    body_ += std::to_string(value);
    return *this;
}

Json & Json::real(const char * name, double value) {
    char digits[40];
    std::snprintf(digits, sizeof digits, "%.6f", value);
    key(name);
    body_ += digits;
    return *this;
}

Json & Json::flag(const char * name, bool value) {
    key(name);
    body_ += value ? "true" : "false";
    return *this;
}

Json & Json::raw(const char * name, const std::string & value) {
    key(name);
    body_ += value;
    return *this;
}

}  // namespace ladder
