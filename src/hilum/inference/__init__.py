"""Answers: a sealed bundle and ONNX Runtime, no torch."""
