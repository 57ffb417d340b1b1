"""Measuring a model: divergence from its FP16 file, task scores, agreement of kernels, speed."""
