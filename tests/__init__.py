"""Tests of hwc-onnx; shared models and helpers are imported as `tests.<module>`."""
