# llama.cpp makes its `ggml` library wait for every configured kernel. Without that, one tree is
# configured for all kernels and each is built only when it is asked for by name.
function(add_dependencies target)
  if(target STREQUAL "ggml" AND ARGN MATCHES "^ggml-")
    return()
  endif()
  _add_dependencies(${target} ${ARGN})
endfunction()

# The loader of kernels is kept to its own folder: own_folder_only.h says why.
set(QM_NATIVE "${CMAKE_CURRENT_LIST_DIR}")
function(qm_own_folder_only)
  target_compile_options(ggml PRIVATE "SHELL:-include ${QM_NATIVE}/own_folder_only.h")
endfunction()
cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL qm_own_folder_only)
