"""One handler per resource type: it makes or updates the resource through boto3 and returns what
the provider would.

Importing this package registers all of them.
"""

from sandbox.handlers import identity, iot, lookups, messages, monitoring, serverless, storage
from sandbox.handlers.registry import HANDLERS, LOOKUPS, Aws, Handler, Resource

__all__ = [
    "HANDLERS",
    "LOOKUPS",
    "Aws",
    "Handler",
    "Resource",
    "identity",
    "iot",
    "lookups",
    "messages",
    "monitoring",
    "serverless",
    "storage",
]
