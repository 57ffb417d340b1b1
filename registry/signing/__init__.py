"""Signatures: Ed25519 keys, DSSE envelopes, signed releases; nothing here is trusted by default."""
