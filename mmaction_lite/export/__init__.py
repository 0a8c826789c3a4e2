"""Export trained models to ONNX and `torch.export` files."""
