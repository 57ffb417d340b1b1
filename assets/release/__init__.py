"""The release stage: from assay records to a signed, published release, with its card."""
