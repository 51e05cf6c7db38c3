package fanfare

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fanfare-dev/fanfare/clients/go/fanfarev1"
)

// The largest message that is received, in bytes: one event of the largest size that a server can be configured for.
const messageBytesMax = 64 << 20

// TokenSource gives the token to use now. It is asked before every try, so it should cache.
type TokenSource interface {
	Token(ctx context.Context) (string, error)
}

// StaticToken is a token that does not change.
type StaticToken string

// Token gives it.
func (t StaticToken) Token(context.Context) (string, error) { return string(t), nil }

// TokenFunc is a function as a TokenSource.
type TokenFunc func(ctx context.Context) (string, error)

// Token calls it.
func (f TokenFunc) Token(ctx context.Context) (string, error) { return f(ctx) }

// Client publishes and subscribes. It may be used by many goroutines.
type Client struct {
	conn     *grpc.ClientConn
	realtime fanfarev1.RealtimeClient
	settings
}

type settings struct {
	token    TokenSource
	deadline time.Duration
	tls      *tls.Config
	dial     []grpc.DialOption
}

// Option changes how a client connects.
type Option func(*settings)

// WithDeadline is what a call may take with all its tries, where its context has no deadline, and how long a stream tries to
// come back; 15 seconds unless told otherwise.
func WithDeadline(deadline time.Duration) Option {
	return func(s *settings) { s.deadline = deadline }
}

// WithTLS is for https URLs that want more than the system's certificates.
func WithTLS(config *tls.Config) Option {
	return func(s *settings) { s.tls = config }
}

// WithDialOptions hands further options to grpc-go.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dial = append(s.dial, options...) }
}

// Connect prepares a connection to e.g. "http://127.0.0.1:50051"; it is made when it is first used.
func Connect(address string, token TokenSource, options ...Option) (*Client, error) {
	with := settings{token: token, deadline: deadlineDefault}
	for _, option := range options {
		option(&with)
	}
	host, secure, err := parse(address)
	if err != nil {
		return nil, err
	}
	transport := insecure.NewCredentials()
	if secure {
		transport = credentials.NewTLS(with.tls)
	}
	dial := append([]grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithChainUnaryInterceptor(with.unary),
		grpc.WithChainStreamInterceptor(with.open),
		// A server that is gone without a word is noticed after 20 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		// How soon a connection is tried again. Calls have pauses of their own.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytesMax)),
	}, with.dial...)
	conn, err := grpc.NewClient("dns:///"+host, dial...)
	if err != nil {
		return nil, fmt.Errorf("fanfare: %w", err)
	}
	return &Client{conn: conn, realtime: fanfarev1.NewRealtimeClient(conn), settings: with}, nil
}

func parse(address string) (host string, secure bool, err error) {
	parsed, err := url.Parse(address)
	if err != nil || (parsed.Scheme != "http" && parsed.Scheme != "https") || parsed.Host == "" || (parsed.Path != "" && parsed.Path != "/") {
		return "", false, fmt.Errorf("fanfare: %q is no server URL: want e.g. \"http://127.0.0.1:50051\" or \"https://fanfare.example.com\"", address)
	}
	secure = parsed.Scheme == "https"
	switch {
	case parsed.Port() != "":
		return parsed.Host, secure, nil
	case secure:
		return parsed.Host + ":443", secure, nil
	default:
		return parsed.Host + ":80", secure, nil
	}
}

// Conn is for the generated stubs of a catalog: their calls get the token, a deadline, an idempotency key and retries.
func (c *Client) Conn() *grpc.ClientConn { return c.conn }

// Close closes the connection and ends what runs over it.
func (c *Client) Close() error { return c.conn.Close() }

// NotifyOption says where an event goes.
type NotifyOption func(*fanfarev1.Target)

// ToTenant is for tokens of all tenants; otherwise the tenant is the token's.
func ToTenant(tenant string) NotifyOption {
	return func(t *fanfarev1.Target) { t.Tenant = tenant }
}

// ToRooms names exactly these rooms, instead of those that the event's type declares.
func ToRooms(rooms ...string) NotifyOption {
	return func(t *fanfarev1.Target) { t.Rooms = rooms }
}

// ExceptSessions names sessions that do not get the event.
func ExceptSessions(ids ...string) NotifyOption {
	return func(t *fanfarev1.Target) { t.ExceptSessions = ids }
}

// WithKey gives the idempotency key, where the event has an identity of its own that outlives this process, such as the number
// of a row. Otherwise it is random.
func WithKey(key string) NotifyOption {
	return func(t *fanfarev1.Target) { t.IdempotencyKey = key }
}

// Notify publishes one event of any catalog. Answered once it is in the log. The context's deadline is that of all tries.
// Errors are [*Error].
func (c *Client) Notify(ctx context.Context, event proto.Message, options ...NotifyOption) (*fanfarev1.NotifyResponse, error) {
	request, err := request(event, options)
	if err != nil {
		return nil, err
	}
	return c.realtime.Notify(ctx, request)
}

func request(event proto.Message, options []NotifyOption) (*fanfarev1.NotifyRequest, error) {
	packed, err := anypb.New(event)
	if err != nil {
		return nil, fmt.Errorf("fanfare: the event cannot be encoded: %w", err)
	}
	target := &fanfarev1.Target{}
	for _, option := range options {
		option(target)
	}
	if target.IdempotencyKey == "" {
		target.IdempotencyKey = uuid.NewString()
	}
	return &fanfarev1.NotifyRequest{Target: target, Event: packed}, nil
}

// keyed gives the request an idempotency key if it has none; false when it cannot have one, so that repeating it is not safe.
func keyed(request any) (any, bool) {
	message, ok := request.(proto.Message)
	if !ok {
		return request, false
	}
	fields := message.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.Kind() != protoreflect.MessageKind || field.IsList() || field.Message().FullName() != "fanfare.v1.Target" {
			continue
		}
		target, ok := message.ProtoReflect().Get(field).Message().Interface().(*fanfarev1.Target)
		if !ok {
			return request, false
		}
		if target.GetIdempotencyKey() == "" {
			// The caller's message is not ours to change.
			message = proto.Clone(message)
			target = message.ProtoReflect().Mutable(field).Message().Interface().(*fanfarev1.Target)
			target.IdempotencyKey = uuid.NewString()
		}
		return message, true
	}
	return request, false
}

// isRenewable: there may be another token.
func (s *settings) isRenewable() bool {
	_, fixed := s.token.(StaticToken)
	return !fixed
}

func (s *settings) authorized(ctx context.Context) (context.Context, error) {
	if given, _ := metadata.FromOutgoingContext(ctx); len(given.Get("authorization")) > 0 {
		return ctx, nil
	}
	token, err := s.token.Token(ctx)
	if err != nil {
		return nil, fmt.Errorf("fanfare: no token: %w", err)
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), nil
}

func (s *settings) unary(
	ctx context.Context, method string, request, response any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	request, repeatable := keyed(request)
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(s.deadline)
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	tries := attempts{end: end}
	for {
		err := s.attempt(ctx, repeatable, func(ctx context.Context) error {
			return invoke(ctx, method, request, response, conn, options...)
		})
		var failure *Error
		if err == nil || !errors.As(err, &failure) {
			return err
		}
		if s.isRenewable() && tries.mayRenew(failure) {
			continue
		}
		pause, again := tries.pauseAfter(failure)
		if !repeatable || !again || sleep(ctx, pause) != nil {
			return failure
		}
	}
}

// attempt is one try, with the token of this moment.
func (s *settings) attempt(ctx context.Context, bounded bool, call func(context.Context) error) error {
	try := ctx
	if bounded {
		var cancel context.CancelFunc
		try, cancel = context.WithTimeout(ctx, attemptMax)
		defer cancel()
	}
	try, err := s.authorized(try)
	if err != nil {
		return err
	}
	if err := call(try); err != nil {
		return wrap(ctx, err)
	}
	return nil
}

func (s *settings) open(
	ctx context.Context, about *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	ctx, err := s.authorized(ctx)
	if err != nil {
		return nil, err
	}
	return open(ctx, about, conn, method, options...)
}
