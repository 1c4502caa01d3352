"""Configs, one file a method, the data set its argument."""
