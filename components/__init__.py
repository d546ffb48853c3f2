"""What exists in AWS: the Pulumi components, the configuration that shapes them, and their names
and documents."""
