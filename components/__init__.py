"""What exists in AWS: the Pulumi components, their configuration and their policies."""
