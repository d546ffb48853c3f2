"""A client of a service as boto3 makes it, before a world that answers from memory: parameters and
answers have the shapes of botocore's model, and pages are taken as boto3 takes them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import botocore.session
from botocore import xform_name
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape
from botocore.paginate import Paginator, PaginatorModel
from botocore.validate import validate_parameters


@functools.cache
def _service(name: str) -> tuple[ServiceModel, PaginatorModel]:
    session = botocore.session.get_session()
    return session.get_service_model(name), session.get_paginator_model(name)


@functools.cache
def _operations(service: str) -> dict[str, OperationModel]:
    """By their names in Python."""
    model, _ = _service(service)
    return {xform_name(name): model.operation_model(name) for name in model.operation_names}


class ModelClient:
    """`world` answers a call by the function of its name in Python."""

    def __init__(self, world: Any, service: str) -> None:
        self._world, self._service = world, service

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = _operations(self._service).get(name)
        if operation is None:
            raise AttributeError(name)

        def call(**parameters: Any) -> Any:
            validate_parameters(parameters, operation.input_shape)
            answer = getattr(self._world, name)(**parameters)
            check_shape(answer, operation.output_shape, name)
            return answer

        return call

    def get_paginator(self, name: str) -> Paginator:
        operation = _operations(self._service)[name]
        config = _service(self._service)[1].get_paginator(operation.name)
        return Paginator(getattr(self, name), config, operation)


def check_shape(value: Any, shape: Shape | None, where: str) -> None:
    """That the service could answer so, as far as names go."""
    if isinstance(shape, StructureShape):
        unknown = value.keys() - shape.members.keys()
        assert not unknown, f"{where}: {shape.name} has no {sorted(unknown)}"
        for key, item in value.items():
            check_shape(item, shape.members[key], f"{where}.{key}")
    elif isinstance(shape, ListShape):
        for item in value:
            check_shape(item, shape.member, where)
    elif isinstance(shape, MapShape):
        for item in value.values():
            check_shape(item, shape.value, where)
