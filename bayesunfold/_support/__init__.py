"""What all other parts stand on: files, statistics and streams. Imports nothing of the package but its errors."""
