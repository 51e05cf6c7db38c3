//! What `fanfare dev` prints: its addresses, and an example command for each way to publish and
//! receive.

use std::{io::Write as _, net::SocketAddr, time::Duration};

use serde_json::json;

use crate::identity;

const AGE: Duration = Duration::from_secs(7 * 24 * 3600);

pub(crate) fn print(grpc: SocketAddr, http: SocketAddr, secret: &str, console: bool) -> anyhow::Result<()> {
    if console {
        let _unread = writeln!(std::io::stdout(), "open http://{http}/");
    }
    let operator = json!({ "userId": 42, "organizationId": 1, "username": "operator" });
    let operator = identity::token(secret, AGE, operator)?;
    let producer = json!({ "sub": "producer", "tenant": "1", "scopes": ["notify", "subscribe"] });
    let producer = identity::token(secret, AGE, producer)?;
    let fanfare = std::env::args().next().unwrap_or_else(|| "fanfare".into());
    // Unread output is not a reason to stop.
    let _unread = writeln!(
        std::io::stdout(),
        r#"
Fanfare is up.

  producers and consumers   http://{grpc}   gRPC, gRPC-Web, reflection, health
  browsers                  http://{http}   Socket.IO at /socket.io/, WebSocket at /ws, SSE at /events, polling at /poll

Tokens for tenant 1, good for a week (paste both lines into the shell you try things in):

  export OPERATOR='{operator}'
  export PRODUCER='{producer}'

Out: see events arrive
  a browser's client, in a folder where `npm install socket.io-client` has run:
    node -e 'require("socket.io-client").io("http://{http}",{{auth:{{token:process.env.OPERATOR}}}})
      .on("connect_error",e=>console.log(e.message)).onAny((...event)=>console.log(...event))'
  server-sent events with curl:
    curl -N "http://{http}/events?token=$OPERATOR"
  a consumer over gRPC:
    {fanfare} subscribe org --server http://{grpc} --token "$PRODUCER"
  over gRPC-Web, the same method with curl (binary frames):
    printf '\000\000\000\000\005\022\003org' | curl -sN http://{grpc}/fanfare.v1.Realtime/Subscribe \
      -H "authorization: Bearer $OPERATOR" -H 'content-type: application/grpc-web+proto' --data-binary @- | strings

In: publish one
    {fanfare} notify messenger.v1.NewMessage --server http://{grpc} --token "$PRODUCER" \
      '{{"id":1,"chatId":7,"content":"Hello","fromMe":true,"channel":"whatsapp","timestamp":"2026-01-31T12:00:00Z"}}'
  with grpcurl, through reflection:
    grpcurl -plaintext -H "authorization: Bearer $PRODUCER" \
      -d '{{"event":{{"id":1,"chatId":7,"content":"Hello","channel":"CHANNEL_WHATSAPP"}}}}' \
      {grpc} messenger.v1.Messenger/NotifyNewMessage

Stop with Ctrl-C."#
    );
    Ok(())
}
