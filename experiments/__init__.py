"""What a person starts: one script a method or task."""
