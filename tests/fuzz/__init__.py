"""Mutated GGUF files, and what two readers make of them."""
