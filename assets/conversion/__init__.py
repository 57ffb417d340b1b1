"""The conversion against its source: tokens, template, weights, logits; before any quantizing."""
