"""What a release says of itself: models of its documents, strict, frozen and in canonical JSON."""
