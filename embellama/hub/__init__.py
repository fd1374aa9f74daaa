"""Models by name: the catalogue, downloads, conversion and quantization."""
