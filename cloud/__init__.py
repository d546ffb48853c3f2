"""The one way to AWS: what controller, operators and sandbox read there and change."""
