"""Tests of the ladder: real files, compared byte for byte with llama-quantize's."""
