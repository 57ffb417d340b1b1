"""The test hub and a published release, seen by clients and a proxy that others wrote."""
