"""The one place that knows how TorchRec lays tables over ranks."""
