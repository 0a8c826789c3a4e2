"""Evaluate trained models on videos and predict the classes of videos."""
