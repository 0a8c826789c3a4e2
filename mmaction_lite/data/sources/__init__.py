"""Video files, frame folders, shards and arrays as exact frames behind one interface."""
