"""One handler per resource type: it makes or updates the resource through boto3 and returns what
the provider would.

Importing this package registers all of them.
"""

from sandbox.handlers import identity, iot, logs_and_alarms, lookups, messages, serverless, storage
from sandbox.handlers.registry import FUNCTIONS, HANDLERS

REGISTERED = (identity, iot, logs_and_alarms, lookups, messages, serverless, storage)
__all__ = ["FUNCTIONS", "HANDLERS", "REGISTERED"]
