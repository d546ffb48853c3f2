"""MQTT 5 over mutual TLS to AWS IoT, with requests and their answers.

Every call is made by the device's own thread and waits for the answer there; the SDK's threads only
pass events on. Answers are read strictly: the SDK's typed clients would read them leniently.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

from awscrt import mqtt5
from awscrt.exceptions import AwsCrtError
from awscrt.mqtt_request_response import (
    Client,
    ClientOptions,
    RequestOptions,
    Response,
    ResponsePath,
    StreamingOperationOptions,
    SubscriptionStatusEvent,
    SubscriptionStatusEventType,
)
from awsiot import mqtt5_client_builder

from device.strict_json import StrictJsonError, read_strict_json

REQUEST_TIMEOUT_SECONDS = 10
"""Without an answer; then the device asks again."""
STOP_TIMEOUT_SECONDS = 5.0
KEEP_ALIVE_SECONDS = 60
RECONNECT_MILLISECONDS = (250, 60_000)
"""Bounds of the wait before a new connection: the first, doubling to the longest; each wait is
drawn from 0 to its bound."""
REQUEST_SUBSCRIPTIONS = 10
"""Answer topics subscribed at once; a job in hand needs eight, two for each of `$next`, its
document, its updates and the shadow."""


class Unreachable(Exception):
    """No answer, or none yet: ask again later."""


class NoAnswer(Unreachable):
    """The request went out, as far as known, and nothing came back."""


class Unreadable(Unreachable):
    """The answer is no JSON that a device reads."""


class Stopped(Exception):
    """The device is being stopped."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a device connects."""

    ca_pem: str
    """Of the root CA that signed the endpoint's certificate; "" means the system's."""
    host: str
    port: int
    """8883, or 443 (ALPN) where only that is let through."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What IoT said to a request."""

    is_accepted: bool
    body: dict[str, Any]


class MqttSession:
    """One connection; the SDK reconnects by itself. The callbacks run on the SDK's threads.

    `on_trouble` is called with a short text when a connection attempt or a subscription failed,
    `on_connected` after every one that worked.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        client_id: str,
        certificate_pem: str,
        private_key_pem: str,
        *,
        on_trouble: Callable[[str], None],
        on_connected: Callable[[], None] = lambda: None,
    ) -> None:
        self._stopping: Future[None] = Future()
        self._stopped = threading.Event()
        self._on_trouble = on_trouble
        self._client = mqtt5_client_builder.mtls_from_bytes(
            certificate_pem.encode(),
            private_key_pem.encode(),
            endpoint=endpoint.host,
            port=endpoint.port,
            ca_bytes=endpoint.ca_pem.encode() or None,
            client_id=client_id,
            keep_alive_interval_sec=KEEP_ALIVE_SECONDS,
            min_reconnect_delay_ms=RECONNECT_MILLISECONDS[0],
            max_reconnect_delay_ms=RECONNECT_MILLISECONDS[1],
            retry_jitter_mode=mqtt5.ExponentialBackoffJitterMode.FULL,
            on_lifecycle_connection_success=lambda _: on_connected(),
            on_lifecycle_connection_failure=lambda data: on_trouble(
                f"cannot connect: {data.exception}"
            ),
            on_lifecycle_stopped=lambda _: self._stopped.set(),
        )
        options = ClientOptions(REQUEST_SUBSCRIPTIONS, 1, REQUEST_TIMEOUT_SECONDS)
        self._requests = Client(self._client, options)
        self._streams: list[Any] = []

    def listen(self, topic: str, on_message: Callable[[], None]) -> None:
        """Calls `on_message` after every subscribe to the topic and for every message there; before
        `start`."""

        def on_subscription(event: SubscriptionStatusEvent) -> None:
            if event.type == SubscriptionStatusEventType.SUBSCRIPTION_ESTABLISHED:
                on_message()
            elif event.type == SubscriptionStatusEventType.SUBSCRIPTION_HALTED:
                name = topic.rpartition("/")[2]
                self._on_trouble(f"may not subscribe to {name}: {event.error}")

        options = StreamingOperationOptions(topic, on_subscription, lambda _: on_message())
        self._streams.append(self._requests.create_stream(options))

    def start(self) -> None:
        self._client.start()
        for stream in self._streams:
            stream.open()

    def interrupt(self) -> None:
        """Makes the device's thread, and every call it makes from now on, raise Stopped."""
        if not self._stopping.done():
            self._stopping.set_result(None)

    def close(self) -> None:
        """Disconnects and lets the SDK's clients go."""
        self.interrupt()
        self._client.stop()
        self._stopped.wait(STOP_TIMEOUT_SECONDS)
        del self._streams, self._requests, self._client

    def sleep(self, seconds: float) -> None:
        """Waits; raises Stopped if the device is stopped meanwhile."""
        if wait([self._stopping], timeout=seconds).done:
            raise Stopped

    def ask(self, topic: str, request: Mapping[str, Any], token: str | None = None) -> Answer:
        """Publishes a request and waits for what comes on `topic`/accepted or /rejected: with the
        client token, where the service gives it back. Raises Unreachable or Stopped."""
        answers = [f"{topic}/accepted", f"{topic}/rejected"]
        path = None if token is None else "clientToken"
        options = RequestOptions(
            answers,
            [ResponsePath(answer, path) for answer in answers],
            topic,
            json.dumps(dict(request) if token is None else {**request, path: token}).encode(),
            token,
        )
        response = self._wait_for(self._requests.make_request(options))
        try:
            body = read_strict_json(response.payload or b"")
        except StrictJsonError as error:
            raise Unreadable(str(error)) from error
        if not isinstance(body, dict):
            raise Unreadable("not an object")
        return Answer(is_accepted=response.topic.endswith("/accepted"), body=body)

    def _wait_for(self, future: Future[Response]) -> Response:
        """The SDK's answer. The SDK ends a request by itself; the time here is for the case that it
        does not."""
        seconds = REQUEST_TIMEOUT_SECONDS + STOP_TIMEOUT_SECONDS
        done = wait((future, self._stopping), timeout=seconds, return_when=FIRST_COMPLETED).done
        if self._stopping in done:
            raise Stopped
        if future not in done:
            raise NoAnswer("no answer")
        try:
            return future.result()
        except AwsCrtError as error:
            raise NoAnswer(str(error)) from error
