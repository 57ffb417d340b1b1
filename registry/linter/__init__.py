"""The resolver linter: does every tag that we advertise lead every client to the right file?

`lint(listing)` judges a repository's file list before it is published; it fetches nothing. The
clients' rules are re-implemented in `resolvers`, each with the place it was read from.
"""
