"""Entry points of the functions that run in AWS Lambda: `rollout` and boto3, nothing else."""
