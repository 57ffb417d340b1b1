"""A mint for quantized language models."""

__version__ = "0.1.0"
