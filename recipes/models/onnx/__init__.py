"""An ONNX file as a PyTorch network: read, rebuilt operator by operator, and compared with the file."""
