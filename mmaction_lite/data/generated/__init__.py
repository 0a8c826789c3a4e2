"""Generated videos: the embedded data set, and clips with the decoding cost of Kinetics-400."""
