"""Local text embeddings from GGUF models."""
