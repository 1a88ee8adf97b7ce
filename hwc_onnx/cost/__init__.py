"""Energy and latency on an accelerator."""
