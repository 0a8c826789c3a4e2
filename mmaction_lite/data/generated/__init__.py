"""Generated videos: the embedded data set, and clips that are as expensive to decode as those of Kinetics."""
