#!/usr/bin/env bash
# Makes the committed code of the contract, and of the catalog that the examples use, for the producer clients again.
# Needed only after a change of proto/. Users of the packages need none of this.
#
# Wants in PATH: python3 with grpcio-tools, Go's protoc-gen-go and protoc-gen-go-grpc
# (go install google.golang.org/protobuf/cmd/protoc-gen-go@latest google.golang.org/grpc/cmd/protoc-gen-go-grpc@latest),
# and clients/node/node_modules (npm ci). Python code needs at least the protobuf that it was made with, and works with the next
# major version: grpcio-tools 1.72 (protobuf 6.30) is the one to take, so that users of protobuf 6 and 7 are served.
set -euo pipefail
cd "$(dirname "$0")"

contract=(fanfare/v1/catalog.proto fanfare/v1/realtime.proto fanfare/v1/reason.proto)
example=(messenger/v1/messenger.proto)
protoc() { python3 -m grpc_tools.protoc -I../proto "$@"; }

protoc --python_out=python --pyi_out=python --grpc_python_out=python "${contract[@]}"
rm python/fanfare/v1/{catalog,reason}_pb2_grpc.py # they have no services
protoc --python_out=python/examples --pyi_out=python/examples --grpc_python_out=python/examples "${example[@]}"

module=github.com/fanfare-dev/fanfare/clients/go
mapping="Mfanfare/v1/catalog.proto=$module/fanfarev1,Mfanfare/v1/realtime.proto=$module/fanfarev1,Mfanfare/v1/reason.proto=$module/fanfarev1"
mapping="$mapping,Mmessenger/v1/messenger.proto=$module/examples/messengerv1"
protoc --go_out=go --go_opt="module=$module,$mapping" --go-grpc_out=go --go-grpc_opt="module=$module,$mapping" "${contract[@]}" "${example[@]}"

es() { protoc --plugin=protoc-gen-es=node/node_modules/.bin/protoc-gen-es "$@"; }
es --es_out=node/src/gen --es_opt=target=ts,import_extension=js "${contract[@]}"
es --es_out=node/examples/gen --es_opt=target=js+dts,import_extension=js "${contract[@]}" "${example[@]}"
es --es_out=channels/common/gen --es_opt=target=ts,import_extension=js "${contract[@]}" "${example[@]}"
