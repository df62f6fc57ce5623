"""What a trained retrieval model recommends: who asks (no torch), what is found, exactly or by an index, and the lists as tables."""
