package hcm

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// A watch looks after one connection from outside its goroutine. One timer is armed
// lazily: a request that is answered quickly costs it a few atomic operations. A request
// that lasts longer than stall is looked at again and again: its time limits are kept,
// and once its body was read the socket is read ahead, so that a client that leaves is
// noticed. A connection without a request is woken when its time is up, or to give
// back memory.
type watch struct {
	c     *conn
	timer *time.Timer
	due   atomic.Int64 // when the timer fires, ns after the connection began
	state atomic.Uint32
	since atomic.Int64  // when the state began
	moved atomic.Uint32 // changes whenever bytes move
	heads bool          // the time of a request's first byte matters
	first atomic.Int64  // that time, 0 while there is none or nobody asks
	idle  atomic.Int64  // idle_timeout of the stream's route; negative: the connection manager's
	life  atomic.Int64  // max_stream_duration of the stream's route, likewise
	kicks atomic.Bool   // a kick is under way or not yet noticed

	mu     sync.Mutex
	over   bool
	wake   wakeReason
	why    *limit        // that has ended the stream
	ended  int64         // when it did
	ahead  chan struct{} // closed when the reader ahead has ended; nil: there is none
	open   int64         // the request (by since) whose tunnel was opened: its bytes are read as a body
	seen   uint32        // moved at the last look
	change int64         // when moved changed
}

// The states of a connection.
const (
	waiting uint32 = iota // for a request
	running               // a request
	watched               // running, and the watch is looking or reads ahead
)

const (
	stall   = 100 * time.Millisecond
	atRest  = time.Second // after which an idle connection gives back its memory
	farAway = time.Hour
)

// A wakeReason is why a wait for a request was cut short.
type wakeReason uint8

const (
	wakeNone wakeReason = iota
	wakeIdle
	wakeHeaders
	wakeAge
	wakeDrain
	wakeMemory
	wakeStalled // the rest of a request's head does not come
)

// A limit is why a stream is ended from outside, a time limit mostly, and what the client is told.
type limit struct {
	flag    streaminfo.Flag
	details string
	text    string
	gateway bool // 504 once the request is complete
	status  int  // of the answer, 0: that of a time limit
}

var (
	limitIdle    = &limit{flag: streaminfo.StreamIdleTimeout, details: "stream_idle_timeout", text: "stream timeout", gateway: true}
	limitRequest = &limit{details: "request_overall_timeout", text: "request timeout"}
	limitStream  = &limit{details: "max_duration_timeout", text: "downstream duration timeout", gateway: true}
	stalledHead  = http.Reply{Status: 408, Body: []byte(limitIdle.text), Details: limitIdle.details, Flag: limitIdle.flag, GRPCStatus: -1, Close: true}
	lateHeaders  = http.Reply{Status: 408, Body: []byte("request header timeout"), Details: "request_header_timeout", GRPCStatus: -1, Close: true}
)

func (w *watch) init(c *conn) {
	w.c = c
	w.heads = c.m.headers > 0
	w.idle.Store(-1)
	w.life.Store(-1)
	w.due.Store(int64(farAway))
	w.timer = time.AfterFunc(farAway, w.tick)
}

func (w *watch) now() int64 { return int64(time.Since(w.c.began)) }

// arm makes the timer fire after d at the latest.
func (w *watch) arm(now int64, d time.Duration) {
	if w.due.Load() <= now+int64(d) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armLocked(now, d)
}

func (w *watch) armLocked(now int64, d time.Duration) {
	if !w.over && w.due.Load() > now+int64(d) {
		w.due.Store(now + int64(d))
		w.timer.Reset(d)
	}
}

// wait begins a wait for a request.
func (w *watch) wait() {
	now := w.now()
	w.first.Store(0)
	w.since.Store(now)
	w.state.Store(waiting)
	w.arm(now, atRest)
}

// begin begins a request.
func (w *watch) begin() {
	now := w.now()
	w.since.Store(now)
	w.state.Store(running)
	if w.kicks.Load() { // it came too late
		w.reason()
		w.c.clearDeadline()
	}
	w.arm(now, stall)
}

// progress notes that bytes moved; those of a request's head may have a time limit.
func (w *watch) progress() {
	w.moved.Add(1)
	if w.heads && w.state.Load() == waiting && w.first.Load() == 0 {
		now := w.now()
		w.first.Store(now)
		w.arm(now, w.c.m.headers)
	}
}

// routeIdle notes idle_timeout of the stream's route, negative for none.
func (w *watch) routeIdle(d time.Duration) {
	if w.idle.Load() != int64(d) { // which it is for nearly all requests
		w.idle.Store(int64(d))
	}
}

// routeLife notes how long the stream may last by its route, negative for no word on that.
func (w *watch) routeLife(d time.Duration) {
	if w.life.Load() != int64(d) {
		w.life.Store(int64(d))
	}
}

// headBegan notes when the first byte of a request's head came that is not complete yet.
func (w *watch) headBegan(at time.Time) {
	w.first.CompareAndSwap(0, max(1, int64(at.Sub(w.c.began))))
}

// settle ends a request; false: the client has left.
func (w *watch) settle() bool {
	if w.state.CompareAndSwap(running, waiting) && !w.c.st.Left() {
		return true
	}
	w.mu.Lock()
	ahead := w.ahead
	w.mu.Unlock()
	if ahead != nil {
		_ = w.c.nc.SetReadDeadline(past) // fails only on a closed connection
		<-ahead
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	late := w.why != nil
	w.ahead, w.why = nil, nil
	w.state.Store(waiting)
	if late {
		w.c.revive()
	}
	return w.c.clearDeadline() && (late || !w.c.st.Left())
}

// end stops the watch for good.
func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.timer.Stop()
}

// expired is the limit that has ended the stream, nil for none.
func (w *watch) expired() *limit {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.why
}

// reason is why the wait was cut short, and forgets it.
func (w *watch) reason() wakeReason {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.wake
	w.wake = wakeNone
	w.kicks.Store(false)
	return r
}

// kick wakes a connection that waits for a request.
func (w *watch) kick(why wakeReason) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kicks.Store(true)
	if w.over || w.state.Load() != waiting {
		w.kicks.Store(false)
		return
	}
	w.wake = why
	_ = w.c.nc.SetReadDeadline(past) // fails only on a closed connection
}

// tick is what the timer runs.
func (w *watch) tick() {
	w.mu.Lock()
	w.due.Store(int64(1<<63 - 1))
	w.mu.Unlock()
	now := w.now()
	next := farAway
	if w.state.Load() == waiting {
		next = w.lookIdle(now)
	} else {
		next = w.lookBusy(now)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armLocked(w.now(), next)
}

// lookIdle looks at a connection that waits for a request, and says when to look again.
func (w *watch) lookIdle(now int64) time.Duration {
	m := w.c.m
	since, first := w.since.Load(), w.first.Load()
	next := farAway
	check := func(limit time.Duration, from int64, why wakeReason) {
		switch left := limit - time.Duration(now-from); {
		case limit == 0:
		case left <= 0:
			w.kick(why)
			next = min(next, stall) // should the kick come to nothing
		default:
			next = min(next, left)
		}
	}
	if first != 0 {
		check(m.headers, first, wakeHeaders)
		check(m.streamIdle, first, wakeStalled)
		return next
	}
	check(m.idle, since, wakeIdle)
	check(w.c.maxAge, 0, wakeAge)
	if !w.c.atRest.Load() {
		check(atRest, since, wakeMemory)
	}
	return next
}

// lookBusy looks at a request under way, and says when to look again.
func (w *watch) lookBusy(now int64) time.Duration {
	since := w.since.Load()
	if elapsed := time.Duration(now - since); elapsed < stall {
		return stall - elapsed
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.state.CompareAndSwap(running, watched) {
		if w.ahead == nil {
			return stall // it has ended meanwhile
		}
	}
	since = w.since.Load() // of the request that is held now: another one may have begun
	next, why := w.limits(now, since)
	switch {
	case w.why != nil:
		if time.Duration(now-w.ended) >= stall {
			_ = w.c.nc.Close() // the stream did not end by itself
		}
	case why != nil:
		w.expire(why)
	case w.ahead == nil && (w.c.codec.Finished() || w.c.codec.Tunnels() && w.open != since):
		w.readAhead()
	}
	if w.ahead == nil {
		w.state.CompareAndSwap(watched, running)
	}
	return min(next, stall)
}

// expire ends the request under way. w.mu is held, and the request cannot end.
func (w *watch) expire(why *limit) {
	w.why, w.ended = why, w.now()
	w.c.drop()
	_ = w.c.nc.SetReadDeadline(past) // fails only on a closed connection
}

// stop ends the request under way by a limit that is not of its time.
func (w *watch) stop(why *limit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.why != nil {
		return
	}
	w.state.CompareAndSwap(running, watched)
	w.expire(why)
	if w.ahead == nil {
		w.state.CompareAndSwap(watched, running)
	}
	w.armLocked(w.now(), stall) // to see that it does end
}

// readAhead notices a client that leaves while its request is answered, by reading
// what comes after the request. w.mu is held.
func (w *watch) readAhead() {
	c, done := w.c, make(chan struct{})
	w.ahead = done
	go func() {
		defer close(done)
		for {
			room, err := c.codec.ReadAhead()
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				c.drop()
			}
			if err != nil || !room {
				return
			}
		}
	}()
}

// tunnel ends the reading ahead for good; what was read is the body's.
func (w *watch) tunnel() {
	w.mu.Lock()
	ahead := w.ahead
	w.open = w.since.Load()
	w.mu.Unlock()
	if ahead == nil {
		return
	}
	_ = w.c.nc.SetReadDeadline(past) // fails only on a closed connection
	<-ahead
	w.c.clearDeadline()
	w.mu.Lock()
	w.ahead = nil
	w.state.CompareAndSwap(watched, running)
	w.mu.Unlock()
}

// limits is the limit that has passed, or when the next one will. w.mu is held, and
// the stream cannot end.
func (w *watch) limits(now, since int64) (time.Duration, *limit) {
	m, moved := w.c.m, w.moved.Load()
	if w.change < since {
		w.change, w.seen = since, moved
	}
	if moved != w.seen {
		w.change, w.seen = now, moved
	}
	request, idle, life := m.request, m.streamIdle, m.maxStream
	if d := w.life.Load(); d >= 0 {
		life = time.Duration(d)
	}
	if w.c.codec.Finished() {
		request = 0
	}
	if d := w.idle.Load(); d >= 0 {
		idle = time.Duration(d)
	}
	next := farAway
	for _, l := range [...]struct {
		max  time.Duration
		from int64
		why  *limit
	}{{life, since, limitStream}, {request, since, limitRequest}, {idle, w.change, limitIdle}} {
		left := l.max - time.Duration(now-l.from)
		switch {
		case l.max == 0:
		case left <= 0:
			return stall, l.why
		default:
			next = min(next, left)
		}
	}
	return next, nil
}
