"""bigembed: distributed training for embeddings with very large vocabularies."""

__version__ = "0.1.0"
