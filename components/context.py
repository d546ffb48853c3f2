"""What a component hands on to its children."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import pulumi

from components.location import Location
from rollout.names import FleetNames

N_co = TypeVar("N_co", bound=FleetNames, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Context(Generic[N_co]):
    names: pulumi.Output[N_co]
    location: pulumi.Output[Location]
    tags: Mapping[str, str]
    log_retention_days: int
    protect: bool
    """Whether what `keep` marks is protected, and kept in AWS whatever the stack does."""
    tls_only: bool = True
    """Whether queue and topic refuse requests without TLS."""


def keep(options: pulumi.ResourceOptions, protect: bool) -> pulumi.ResourceOptions:
    """`options`, for what holds devices, their rights, keys, images, memory or evidence: where
    `protect` is set a preview that would delete or replace it fails, and once it is unprotected it
    leaves the stack, but not AWS."""
    on = protect or None
    own = pulumi.ResourceOptions(protect=on, retain_on_delete=on)
    return pulumi.ResourceOptions.merge(options, own)


def after(options: pulumi.ResourceOptions, *first: pulumi.Resource) -> pulumi.ResourceOptions:
    """`options`, for a resource that is made after the `first`, and deleted before them."""
    return pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(depends_on=list(first)))
