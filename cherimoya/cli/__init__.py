"""The console scripts, and what is set for a whole process."""
