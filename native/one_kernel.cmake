# llama.cpp makes its `ggml` library wait for every configured kernel. Without that, one tree is
# configured for all kernels and each is built only when it is asked for by name.
function(add_dependencies target)
  if(target STREQUAL "ggml" AND ARGN MATCHES "^ggml-")
    return()
  endif()
  _add_dependencies(${target} ${ARGN})
endfunction()
