// The few JSON lines this program writes: one flat builder, no reader.
#pragma once

#include <cstdint>
#include <string>

namespace ladder {

class Json {
public:
    Json & text(const char * key, const std::string & value);
    Json & number(const char * key, uint64_t value);
    Json & real(const char * key, double value);
    Json & flag(const char * key, bool value);
    // `value` is JSON already.
    Json & raw(const char * key, const std::string & value);
    std::string object() const { return "{" + body_ + "}"; }

private:
    void key(const char * name);
    std::string body_;
};

// The text with JSON's quotes; bytes that are not UTF-8 become U+FFFD.
std::string json_quote(const std::string & text);

}  // namespace ladder
