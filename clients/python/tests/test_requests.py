"""Envelopes, keys and addresses."""

import pytest
from messenger.v1 import messenger_pb2 as catalog

from fanfare._requests import address, authorized, keyed, notify_request
from fanfare.v1 import realtime_pb2 as pb


def test_a_typed_request_gets_a_key_and_stays_as_it_was():
    request = catalog.NotifyNewMessageRequest(event=catalog.NewMessage(id=1))
    first, repeatable = keyed(request)
    assert repeatable and first.target.idempotency_key and first.event.id == 1
    assert not request.HasField("target")
    assert keyed(request)[0].target.idempotency_key != first.target.idempotency_key
    assert keyed(first)[0] is first


def test_a_request_without_a_target_is_not_repeatable():
    assert keyed(pb.DisconnectRequest(everybody=True)) == (pb.DisconnectRequest(everybody=True), False)


def test_an_event_is_packed_with_its_full_name():
    request = notify_request(catalog.NewMessage(id=3), "1", ["chat:7"], "key", [])
    assert request.event.type_url == "type.googleapis.com/messenger.v1.NewMessage"
    assert request.target == pb.Target(tenant="1", rooms=["chat:7"], idempotency_key="key")
    with pytest.raises(TypeError, match="rooms"):
        notify_request(catalog.NewMessage(), "", "chat:7", None, [])


def test_addresses():
    assert address("http://127.0.0.1:50051") == ("127.0.0.1:50051", False)
    assert address("https://fanfare.example.com/") == ("fanfare.example.com:443", True)
    for wrong in ["127.0.0.1:50051", "ftp://host", "http://", "http://host/path"]:
        with pytest.raises(ValueError, match="no server URL"):
            address(wrong)


def test_a_token_of_the_caller_goes_first():
    assert authorized([("authorization", "Bearer mine")], "other") == [("authorization", "Bearer mine")]
    assert authorized(None, "t") == [("authorization", "Bearer t")]
