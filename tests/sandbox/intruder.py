"""An MQTT client that tries what it may not do."""

from __future__ import annotations

import queue
from concurrent.futures import TimeoutError as Late
from typing import Any

from awscrt import exceptions, io, mqtt5

ANSWER_SECONDS = 10.0
ACCEPTED = (mqtt5.PubackReasonCode.SUCCESS, mqtt5.PubackReasonCode.NO_MATCHING_SUBSCRIBERS)


class Intruder:
    """One connection attempt, with any client id and with any certificate, or none. A context
    manager."""

    def __init__(
        self,
        port: int,
        authority: str,
        client_id: str,
        identity: tuple[str, str] | None = None,
        will: str | None = None,
    ) -> None:
        tls = (
            io.TlsContextOptions.create_client_with_mtls(*(pem.encode() for pem in identity))
            if identity
            else io.TlsContextOptions()
        )
        tls.override_default_trust_store(authority.encode())
        last_word = (
            mqtt5.PublishPacket(payload=b"{}", qos=mqtt5.QoS.AT_LEAST_ONCE, topic=will)
            if will
            else None
        )
        self._outcomes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._client = mqtt5.Client(
            mqtt5.ClientOptions(
                host_name="localhost",
                port=port,
                tls_ctx=io.ClientTlsContext(tls),
                connect_options=mqtt5.ConnectPacket(
                    client_id=client_id, keep_alive_interval_sec=30, will=last_word
                ),
                offline_queue_behavior=mqtt5.ClientOperationQueueBehaviorType.FAIL_ALL_ON_DISCONNECT,
                on_lifecycle_event_connection_success_fn=lambda _: self._outcomes.put(True),
                on_lifecycle_event_connection_failure_fn=lambda _: self._outcomes.put(False),
            )
        )

    def __enter__(self) -> Intruder:
        self._client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop()

    def connected(self) -> bool:
        """What came of the attempt."""
        return self._outcomes.get(timeout=ANSWER_SECONDS)

    def may_publish(self, topic: str, payload: bytes = b"{}", retain: bool = False) -> bool:
        packet = mqtt5.PublishPacket(
            payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE, retain=retain, topic=topic
        )
        answer = self._answer(self._client.publish(packet))
        return answer is not None and answer.puback.reason_code in ACCEPTED

    def may_subscribe(self, topic_filter: str) -> bool:
        packet = mqtt5.SubscribePacket(
            [mqtt5.Subscription(topic_filter, qos=mqtt5.QoS.AT_LEAST_ONCE)]
        )
        answer = self._answer(self._client.subscribe(packet))
        return answer is not None and all(int(code) < 0x80 for code in answer.reason_codes)

    def _answer(self, future: Any) -> Any:
        """The broker's answer; None when it ended the connection instead, as AWS does."""
        try:
            return future.result(ANSWER_SECONDS)
        except exceptions.AwsCrtError:
            return None
        except Late:
            raise AssertionError("the broker did not answer") from None
