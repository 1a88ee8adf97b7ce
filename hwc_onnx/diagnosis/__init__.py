"""Where a compressed model loses accuracy, and why: each layer by itself, measured in ONNX Runtime."""
