"""The assay: what every variant is measured at, and the gates that it must pass."""
