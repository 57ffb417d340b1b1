"""The ladder: every variant of a model in one pass, byte for byte as llama-quantize makes them."""
