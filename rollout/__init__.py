"""The domain: releases, rings, gates and the decision what each ring should run.

Pure and standard library only, so that the same code runs in the Lambda function, in the Pulumi
program, in the operator's command line and in the simulation.
"""
