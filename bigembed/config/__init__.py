"""Typed configuration: the schema, its checks, Hydra's store, and the form in which a run keeps it."""
