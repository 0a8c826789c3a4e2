"""Commands on data sets: validate, prepare, browse."""
