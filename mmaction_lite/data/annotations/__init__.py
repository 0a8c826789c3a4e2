"""Annotation files, class folders and published formats as one table of samples."""
