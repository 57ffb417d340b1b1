"""Asking llama.cpp what it makes of a converted file: tokens, templates, logits."""
