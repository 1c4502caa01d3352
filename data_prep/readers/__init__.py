"""One reader per data set: a raw folder -> records."""
