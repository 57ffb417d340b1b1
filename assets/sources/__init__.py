"""Where weights come from: the Hub, a local folder, a GGUF file, or this package."""
