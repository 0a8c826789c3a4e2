"""Which frames and which pixels of a video a model sees: samplers, crops, augmentation, protocols."""
