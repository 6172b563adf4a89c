"""The client: `Client`, and what it is made of."""
