"""The tflite compiler: PyTorch -> float .tflite once, then quantise per candidate in milliseconds."""
