"""The committed code is that of the contract; `clients/generate.sh` makes it for all languages at once."""

from pathlib import Path

import grpc_tools
import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from fanfare.v1 import catalog_pb2, realtime_pb2, reason_pb2

WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"
PROTO = Path(__file__).parents[3] / "proto"


@pytest.mark.parametrize("module", [catalog_pb2, realtime_pb2, reason_pb2], ids=lambda module: module.DESCRIPTOR.name)
def test_the_committed_code_is_that_of_the_contract(module, tmp_path):
    name, out = module.DESCRIPTOR.name, tmp_path / "now"
    assert protoc.main(["protoc", f"-I{PROTO}", f"-I{WELL_KNOWN}", f"--descriptor_set_out={out}", name]) == 0
    [now] = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    for field in _fields(now):
        # Only here does protoc write what follows from the name.
        field.ClearField("json_name")
    committed = descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
    assert committed == now, f"proto/{name} has changed: run clients/generate.sh"


def _fields(file):
    pending = list(file.message_type)
    while pending:
        message = pending.pop()
        pending.extend(message.nested_type)
        yield from [*message.field, *message.extension]
    yield from file.extension
