"""Raw data sets turned into prepared ones."""
