"""Data, metrics, ONNX Runtime sessions and statistics."""
