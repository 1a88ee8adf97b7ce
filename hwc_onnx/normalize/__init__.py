"""Model to model: opset, constant folding, batch-norm folding."""
