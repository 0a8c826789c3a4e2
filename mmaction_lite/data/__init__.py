"""Videos and annotation files in, uint8 pixels out."""
