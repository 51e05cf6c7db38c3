"""Calls the generated, typed stubs of the catalogs for the tests, one JSON line in, one out.

{"id", "target", "token", "method": "messenger.v1.Messenger/NotifyNewMessage", "request": {...}} calls the stub's method;
"raw" (base64) instead of "request" sends these bytes, "collect": N reads N messages of a stream, "special" runs one
of the named functions. The answer holds "ok" or "error" with "code", "message", "domain", "reason" and "metadata".
"""

import base64
import importlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from google.protobuf import empty_pb2, json_format, message_factory  # noqa: F401 (empty_pb2: known to the JSON parser)
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

channels = {}


def credentials():
    """With TLS, the files that the environment names: authorities, and perhaps a certificate and its key."""
    files = [os.environ.get(f"PRODUCER_{name}") for name in ("CA", "KEY", "CERT")]
    return grpc.ssl_channel_credentials(*(file and Path(file).read_bytes() for file in files))


def channel(target):
    if target not in channels:
        options = [("grpc.max_send_message_length", 64 << 20)]
        secure = "PRODUCER_CA" in os.environ
        channels[target] = grpc.secure_channel(target, credentials(), options) if secure else grpc.insecure_channel(target, options)
    return channels[target]


def modules(service):
    """The generated modules whose package holds the service."""
    package = service.rsplit(".", 1)[0]
    folder = package.replace(".", "/")
    for path in sys.path:
        for found in sorted(Path(path, folder).glob("*_pb2_grpc.py")):
            name = f"{package}.{found.stem}"
            yield importlib.import_module(name), importlib.import_module(name.removesuffix("_grpc"))


def find(method):
    service, name = method.split("/")
    for stubs, messages in modules(service):
        descriptor = messages.DESCRIPTOR.services_by_name.get(service.rsplit(".", 1)[1])
        if descriptor:
            return getattr(stubs, f"{descriptor.name}Stub"), descriptor.methods_by_name[name]
    raise LookupError(method)


def error_info(error):
    """What the google.rpc.ErrorInfo in the status details says."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(details).details:
        if detail.Unpack(info):
            return {"domain": info.domain, "reason": info.reason, "metadata": dict(info.metadata)}
    return {}


def as_json(message):
    return json_format.MessageToDict(message)


def bearer(line):
    return [("authorization", f"Bearer {line['token']}")] if line.get("token") else []


def call(line):
    metadata = bearer(line)
    stub, descriptor = find(line["method"])
    if "raw" in line:
        path = "/" + line["method"]
        raw = channel(line["target"]).unary_unary(path)
        return {"bytes": len(raw(base64.b64decode(line["raw"]), metadata=metadata, timeout=15))}
    request = json_format.ParseDict(line["request"], message_factory.GetMessageClass(descriptor.input_type)())
    method = getattr(stub(channel(line["target"])), descriptor.name)
    if descriptor.server_streaming:
        stream, messages = method(request, metadata=metadata, timeout=15), []
        for message in stream:
            messages.append(as_json(message))
            if len(messages) == 1:
                emit({"id": line["id"], "started": messages[0]})
            if len(messages) == line["collect"]:
                break
        stream.cancel()
        return messages
    return as_json(method(request, metadata=metadata, timeout=15))


def services(line):
    return sorted(ProtoReflectionDescriptorDatabase(channel(line["target"])).get_services())


def reflected_file(line):
    found = ProtoReflectionDescriptorDatabase(channel(line["target"])).FindFileContainingSymbol(line["symbol"])
    return found.name


def reflected_v1(line):
    """Reflection v1 has the messages of v1alpha under another service name."""
    from grpc_reflection.v1alpha import reflection_pb2 as pb

    path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    stream = channel(line["target"]).stream_stream(
        path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=pb.ServerReflectionResponse.FromString
    )
    answer = next(stream(iter([pb.ServerReflectionRequest(list_services="")]), metadata=bearer(line), timeout=15))
    return sorted(s.name for s in answer.list_services_response.service)


def health(line):
    stub = health_pb2_grpc.HealthStub(channel(line["target"]))
    answer = stub.Check(health_pb2.HealthCheckRequest(service=line["service"]), timeout=15)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def burst(line):
    """Publishes NewMessages through one NotifyStream; answers with their seqs."""
    from fanfare.v1 import realtime_pb2, realtime_pb2_grpc
    from messenger.v1 import messenger_pb2

    def requests():
        for event in line["events"]:
            message = json_format.ParseDict(event["message"], messenger_pb2.NewMessage())
            request = realtime_pb2.NotifyRequest(target=realtime_pb2.Target(rooms=event["rooms"]))
            request.event.Pack(message)
            yield request

    metadata = [("authorization", f"Bearer {line['token']}")]
    # A connection of its own, as another producer would have.
    with grpc.insecure_channel(line["target"], [("grpc.use_local_subchannel_pool", 1)]) as own:
        answers = realtime_pb2_grpc.RealtimeStub(own).NotifyStream(requests(), metadata=metadata, timeout=60)
        return [answer.seq for answer in answers]


def emit(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def serve(line):
    try:
        special = {"services": services, "file": reflected_file, "services_v1": reflected_v1, "health": health, "burst": burst}
        emit({"id": line["id"], "ok": special.get(line.get("special"), call)(line)})
    except grpc.RpcError as error:
        emit({"id": line["id"], "error": {"code": error.code().name, "message": error.details(), **error_info(error)}})
    except Exception as error:  # the test shows it
        emit({"id": line["id"], "error": {"code": type(error).__name__, "message": str(error)}})


if __name__ == "__main__":
    with ThreadPoolExecutor(24) as pool:
        for text in sys.stdin:
            pool.submit(serve, json.loads(text))
