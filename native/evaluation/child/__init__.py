"""The child process that holds one model: native parsers and templates run here, with limits."""
