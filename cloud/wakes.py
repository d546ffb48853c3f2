"""What wakes the controller, as EventBridge has it."""

from __future__ import annotations

from botocore.exceptions import ClientError

from cloud.clients import AWS_ERRORS, Clients, error_code
from cloud.way_back import Clock
from rollout.names import Names

LOOKS = 5
"""How often a rule is looked for: from 0 to 20 s, as a change may take EventBridge a moment."""
LOOK_SECONDS = 5
"""Between one look and the next."""


def is_tick_gone(clients: Clients, names: Names, clock: Clock) -> bool:
    """Whether the rule of the channel's tick does not exist; waits for that, up to 20 s.

    Only EventBridge's own ResourceNotFoundException says so: after any other error the rule counts
    as there (https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_DescribeRule.html).
    """
    for look in range(LOOKS):
        if look:
            clock.sleep(LOOK_SECONDS)
        try:
            clients.events.describe_rule(Name=names.tick)
        except ClientError as error:
            if error_code(error) == "ResourceNotFoundException":
                return True
        except AWS_ERRORS:
            continue
    return False
