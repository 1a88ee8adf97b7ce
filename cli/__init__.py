"""The command line. Imported as hwc_onnx.cli."""
