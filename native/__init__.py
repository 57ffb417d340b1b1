"""llama.cpp: pinned source, kernel matrix, CMake + ninja builds, tools in child processes."""
