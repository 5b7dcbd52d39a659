"""What is kept on disk between nights, and how it is known to be whole."""
