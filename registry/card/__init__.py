"""The model card of a release: Markdown for people, front matter for the Hub."""
