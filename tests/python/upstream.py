"""The back end of the shop: implements the client methods that its catalog passes on. Listens on the port given
and prints the one it has."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from fanfare.v1 import realtime_pb2
from shop.v1 import shop_pb2, shop_pb2_grpc


class Shop(shop_pb2_grpc.ShopClientServicer):
    def PlaceOrder(self, request, context):
        metadata = dict(context.invocation_metadata())
        caller = realtime_pb2.Caller.FromString(metadata["fanfare-caller-bin"])
        assert caller.user_id == metadata["fanfare-user-id"] and caller.tenant == metadata["fanfare-tenant"]
        if request.item == "slow":
            time.sleep(min(context.time_remaining() + 1, 5))
        if request.item == "broken":
            raise RuntimeError("a secret of the back end")
        if request.count < 1:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nothing to order")
        buyer = f"{caller.tenant}/{caller.user_id}/{caller.user_name}"
        return shop_pb2.Order(order_id="o-1", item=request.item, cents=250 * request.count, buyer=buyer)

    def Watch(self, request, context):
        caller = realtime_pb2.Caller.FromString(dict(context.invocation_metadata())["fanfare-caller-bin"])
        if caller.user_id != "1":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not your order")
        return shop_pb2.OrderRef(order_id=request.order_id)


server = grpc.server(ThreadPoolExecutor(4))
shop_pb2_grpc.add_ShopClientServicer_to_server(Shop(), server)
address = f"127.0.0.1:{sys.argv[1]}"
if len(sys.argv) > 2:
    # With TLS: certificate, key, and the authority of the clients.
    cert, key, ca = (open(path, "rb").read() for path in sys.argv[2:5])
    print(server.add_secure_port(address, grpc.ssl_server_credentials([(key, cert)], ca, True)), flush=True)
else:
    print(server.add_insecure_port(address), flush=True)
server.start()
sys.stdin.read()
