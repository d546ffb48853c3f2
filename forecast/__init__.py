"""What a release will do before it is merged: a simulation of fleet, AWS IoT Jobs and controller.

It runs the very `decide` and `list_actions` that run in AWS. docs/planning.md explains it.
"""
