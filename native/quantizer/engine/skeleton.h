// A skeleton of the input: the same files, keys, tensor names, types and row lengths, with only a row or two of
// zeros per tensor. llama.cpp's own quantizer runs on it in milliseconds and so writes the very header,
// tensor order and types it would write for the whole model, and refuses what it would refuse.
#pragma once

#include <string>

#include "source.h"

namespace ladder {

// Writes the skeleton into `folder` and returns the path of its first part.
std::string write_skeleton(const Source & source, const std::string & folder);

}  // namespace ladder
