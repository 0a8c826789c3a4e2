"""Trained models on videos: evaluation and prediction."""
