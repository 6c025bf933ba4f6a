"""Real servers that the tests start and end."""
