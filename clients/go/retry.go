package fanfare

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	// The first and the longest pause between two tries.
	pauseMin = 100 * time.Millisecond
	pauseMax = 5 * time.Second
	// One try takes at most so long: a server that hangs costs no more than this.
	attemptMax = 5 * time.Second
	// All tries together, unless told otherwise.
	deadlineDefault = 15 * time.Second
)

// backoff gives pauses that double from try to try, each of random length, so that many producers do not come back at once.
type backoff struct{ next time.Duration }

// pause is between half and the whole of the step that has been reached.
func (b *backoff) pause() time.Duration {
	step := max(b.next, pauseMin)
	b.next = min(step*2, pauseMax)
	return step/2 + rand.N(step/2+1)
}

func (b *backoff) reset() { b.next = pauseMin }

// attempts are the tries of one call until its context's deadline.
type attempts struct {
	end     time.Time
	backoff backoff
	renewed bool
}

// pauseAfter is how long to wait before the next try, and whether there shall be one.
func (a *attempts) pauseAfter(err *Error) (time.Duration, bool) {
	if !err.Retryable {
		return 0, false
	}
	pause := max(a.backoff.pause(), err.retryAfter())
	return pause, time.Now().Add(pause).Before(a.end)
}

// mayRenew: it is worth while to ask for another token, once a call.
func (a *attempts) mayRenew(err *Error) bool {
	renew := err.isTokenRefused() && !a.renewed
	a.renewed = a.renewed || renew
	return renew
}

// sleep waits, unless the context ends before.
func sleep(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
