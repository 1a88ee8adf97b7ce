"""What a file does in each runtime: ONNX Runtime, OpenVINO, the qonnx package, and the rules that TensorRT publishes."""
