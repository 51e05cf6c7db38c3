// Package fanfare publishes typed realtime events with Fanfare, and reads them.
//
// A [Client] publishes events of any catalog with [Client.Notify], pipelined with [Client.Stream], and through the generated
// stubs of a catalog over [Client.Conn]. What had no answer is sent again by itself, under one idempotency key an event, so
// that each event is published once. [Client.Subscribe] reads and resumes.
package fanfare
