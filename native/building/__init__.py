"""Building: configured trees, what CMake says of them, compiling, and the parts of bundles."""
