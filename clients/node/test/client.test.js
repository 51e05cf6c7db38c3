// Backoff, errors, keys and addresses.

import { test } from "node:test";
import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { connect, FanfareError } from "@fanfare-dev/client";
import { keyed } from "../dist/request.js";
import { Attempts, Backoff, PAUSE_MAX, PAUSE_MIN } from "../dist/retry.js";
import { DisconnectRequestSchema } from "../examples/gen/fanfare/v1/realtime_pb.js";
import { NotifyNewMessageRequestSchema } from "../examples/gen/messenger/v1/messenger_pb.js";

test("pauses double up to the longest and are random", () => {
  for (let round = 0; round < 200; round++) {
    const backoff = new Backoff();
    for (let i = 0, step = PAUSE_MIN; i < 10; i++, step = Math.min(step * 2, PAUSE_MAX)) {
      const pause = backoff.pause();
      assert.ok(pause >= step / 2 && pause <= step, `${pause} of ${step}`);
    }
    backoff.reset();
    assert.ok(backoff.pause() <= PAUSE_MIN);
  }
  assert.ok(new Set(Array.from({ length: 20 }, () => new Backoff().pause())).size > 1);
});

test("the server says how long to wait, and a pause beyond the deadline ends the tries", () => {
  const limit = new FanfareError("too fast", Code.ResourceExhausted, { reason: "REASON_LIMIT", metadata: { retry_after_millis: "2500" } });
  assert.equal(new Attempts(10_000).pauseAfter(limit), 2500);
  assert.equal(new Attempts(2_000).pauseAfter(limit), undefined);
});

test("only what may succeed later is retryable", () => {
  for (const [code, reason, retryable] of [
    [Code.Unavailable, undefined, true],
    [Code.Unknown, undefined, true],
    [Code.Canceled, undefined, true],
    [Code.DeadlineExceeded, undefined, true],
    [Code.Unavailable, "REASON_SHUTDOWN", true],
    [Code.OutOfRange, undefined, false],
    [Code.OutOfRange, "REASON_RESET", false],
    [Code.PermissionDenied, "REASON_FORBIDDEN", false],
    [Code.Unavailable, "REASON_OF_A_NEWER_SERVER", true],
    [Code.InvalidArgument, "REASON_OF_A_NEWER_SERVER", false],
  ]) {
    assert.equal(new FanfareError("", code, { reason }).retryable, retryable, `${Code[code]} ${reason}`);
  }
});

test("an error is a ConnectError, and a ConnectError is no FanfareError", () => {
  assert.ok(new FanfareError("", Code.Unknown) instanceof ConnectError);
  assert.ok(!(new ConnectError("", Code.Unknown) instanceof FanfareError));
});

test("a typed request gets a key and stays as it was", () => {
  const request = create(NotifyNewMessageRequestSchema, { event: { id: 1n } });
  const first = keyed(NotifyNewMessageRequestSchema, request);
  assert.ok(first.target.idempotencyKey);
  assert.equal(first.event.id, 1n);
  assert.equal(request.target, undefined);
  assert.notEqual(keyed(NotifyNewMessageRequestSchema, request).target.idempotencyKey, first.target.idempotencyKey);
  assert.equal(keyed(NotifyNewMessageRequestSchema, first).target.idempotencyKey, first.target.idempotencyKey);
  const given = { target: { tenant: "1" } };
  assert.ok(keyed(NotifyNewMessageRequestSchema, given).target.idempotencyKey);
  assert.deepStrictEqual(given, { target: { tenant: "1" } });
  assert.equal(keyed(DisconnectRequestSchema, {}), undefined);
});

test("what is no server URL is refused", () => {
  for (const wrong of ["127.0.0.1:50051", "ftp://host", "http://", "http://host/path"]) {
    assert.throws(() => connect(wrong, "t"), /is no server URL/, wrong);
  }
});
