// Compiled into llama.cpp's loader of kernels (see one_kernel.cmake). The loader looks beside the
// program, then also in the current folder, and at GGML_BACKEND_PATH: whoever can write a file
// there would have it loaded. A bundle loads the kernels of its own folder, and no others.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace std {
inline const char * quantmint_no_variable(const char *) { return nullptr; }

namespace filesystem {
inline path quantmint_no_folder(error_code & error) {
    error = make_error_code(errc::operation_not_permitted);
    return {};
}
}  // namespace filesystem
}  // namespace std

#define current_path quantmint_no_folder
#define getenv quantmint_no_variable
