package fanfare

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fanfare-dev/fanfare/clients/go/fanfarev1"
)

// From this number on, a reason is final: see reason.proto.
const finalFrom = 2000

// Error is why a call was refused, or could not be made in time. [errors.As] finds it, and [status.FromError] understands it.
type Error struct {
	// Code is the gRPC status code.
	Code codes.Code
	// Reason is the server's reason, e.g. "REASON_FORBIDDEN" (see docs/errors.md); empty when the connection failed.
	Reason string
	// Message says what was wrong, for people.
	Message string
	// Metadata has more of the server, e.g. "path": the field that is wrong.
	Metadata map[string]string
	// Retryable: the same request may succeed later. Publishing again is safe under the same idempotency key only.
	Retryable bool
	cause     error
}

func (e *Error) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("fanfare: %s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("fanfare: %s: %s", e.Reason, e.Message)
}

// Unwrap gives the error of the gRPC library, or of the context that ended.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus gives the server's status with all its details.
func (e *Error) GRPCStatus() *status.Status {
	if given, ok := status.FromError(e.cause); ok && given.Code() == e.Code {
		return given
	}
	return status.New(e.Code, e.Message)
}

// Cursor is, with the reason REASON_RESET, the place from which a fresh subscription can start.
func (e *Error) Cursor() string { return e.Metadata["cursor"] }

// retryAfter is how long the server asks to wait.
func (e *Error) retryAfter() time.Duration {
	millis, err := strconv.ParseUint(e.Metadata["retry_after_millis"], 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(millis) * time.Millisecond
}

// isTokenRefused: the token itself is the matter, so that another one may do.
func (e *Error) isTokenRefused() bool {
	switch e.Reason {
	case "REASON_TOKEN_EXPIRED", "REASON_TOKEN_REVOKED", "REASON_INVALID_TOKEN":
		return true
	}
	return false
}

// wrap makes the error that a call ended with. What the caller's own context ended is not to be tried again.
func wrap(ctx context.Context, err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	given, _ := status.FromError(err)
	found := &Error{Code: given.Code(), Message: given.Message(), cause: err}
	for _, detail := range given.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "fanfare" {
			found.Reason, found.Metadata = info.GetReason(), info.GetMetadata()
		}
	}
	found.Retryable = isRetryable(found.Code, found.Reason)
	if errors.Is(ctx.Err(), context.Canceled) {
		found.Retryable, found.cause = false, ctx.Err()
	}
	return found
}

func isRetryable(code codes.Code, reason string) bool {
	if number, ok := fanfarev1.Reason_value[reason]; ok {
		return number < finalFrom && number != int32(fanfarev1.Reason_REASON_RESET)
	}
	switch code {
	// What a broken connection looks like. INTERNAL is among them only because gRPC libraries report a reset stream so; the
	// server's own INTERNAL has a reason.
	case codes.Unavailable, codes.Unknown, codes.Canceled, codes.DeadlineExceeded, codes.Internal:
		return true
	default:
		return false
	}
}
