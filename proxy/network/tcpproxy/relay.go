package tcpproxy

import (
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

const (
	// bufferSize is best for bulk that has to pass through us (PERFORMANCE.md §3).
	bufferSize = 128 << 10
	// spliceAfter is how much a direction moves in large reads before the kernel takes
	// over: splice holds a pipe for each direction, which connections that talk little
	// should not.
	spliceAfter = 256 << 10
	largeRead   = 32 << 10
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// relay is one connection's two directions.
type relay struct {
	*filter
	c        *network.Conn
	down, up transport.Conn
	last     atomic.Int64 // time of the last byte, in ns since begin
	begin    time.Time
	sent     atomic.Uint64 // downstream
	received atomic.Uint64
	idled    atomic.Bool // ended by the idle timeout
	late     atomic.Bool // ended by the maximal duration
}

// a direction moves the bytes of one side to the other.
type direction struct {
	*relay
	from, to transport.Conn
	moved    *atomic.Uint64
	counters [2]*stats.Counter // of the listener's side and of the cluster
	streak   int               // bytes since the last read that was not large
	splicer  *splicer          // nil while bytes pass through us
}

func (f *filter) relay(c *network.Conn, up transport.Conn, s *upstream.Stats) {
	r := &relay{filter: f, c: c, down: c.Conn, up: up, begin: time.Now()}
	if c.Relaying != nil {
		c.Relaying(func() (received, sent uint64) { return r.received.Load(), r.sent.Load() })
	}
	stop := r.timers()
	ended := make(chan error, 1)
	go func() {
		d := direction{relay: r, from: up, to: c.Conn, moved: &r.sent, counters: [2]*stats.Counter{f.stats.tx, s.CxRxBytes}}
		err := d.run()
		d.finish(err)
		ended <- err
	}()
	d := direction{relay: r, from: c.Conn, to: up, moved: &r.received, counters: [2]*stats.Counter{f.stats.rx, s.CxTxBytes}}
	downErr := d.run()
	d.finish(downErr)
	upErr := <-ended
	r.closeBoth()
	if t, ok := up.(*tunnel); ok {
		t.release()
	}
	stop() // they look at Info
	c.Info.BytesSent = r.sent.Load()
	c.Info.BytesReceived += r.received.Load() // beside what a filter has received and kept
	switch {
	case r.idled.Load():
		f.stats.idle.Inc()
	case r.late.Load():
		c.Info.Flags.Set(streaminfo.DurationTimeout)
	case resetBy(upErr, false), resetBy(downErr, true):
		c.Info.Flags.Set(streaminfo.UpstreamRemoteReset)
	}
}

// timers starts what happens by the clock; the function ends it, with what has begun.
func (r *relay) timers() (stop func()) {
	var clocks []*clock
	start := func(first time.Duration, f func() time.Duration) { clocks = append(clocks, startClock(first, f)) }
	if r.idle > 0 {
		start(r.idle, r.checkIdle)
	}
	if r.maxDuration > 0 {
		jitter := time.Duration(rand.Float64() * r.jitter * float64(r.maxDuration))
		start(r.maxDuration+jitter-time.Since(r.c.Info.Start), r.expire)
	}
	if r.logs.interval > 0 {
		start(r.logs.interval, r.logPeriodic)
	}
	return func() {
		for _, c := range clocks {
			c.stop()
		}
	}
}

// A clock calls a function after a time, and again after the time that it returns, 0: never.
type clock struct {
	mu      sync.Mutex // held while the function runs
	timer   *time.Timer
	f       func() time.Duration
	stopped bool
}

func startClock(first time.Duration, f func() time.Duration) *clock {
	c := &clock{f: f}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = time.AfterFunc(first, c.strike)
	return c
}

func (c *clock) strike() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	if again := c.f(); again > 0 {
		c.timer.Reset(again)
	}
}

// stop returns when the function does not run and will not.
func (c *clock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	c.timer.Stop()
}

// checkIdle ends a relay on which no byte has moved for the idle timeout, and says when
// to look again.
func (r *relay) checkIdle() time.Duration {
	left := r.idle - (time.Since(r.begin) - time.Duration(r.last.Load()))
	if left > 0 {
		return left
	}
	r.idled.Store(true)
	r.closeBoth()
	return 0
}

func (r *relay) expire() time.Duration {
	r.stats.maxDuration.Inc()
	r.late.Store(true)
	r.closeBoth()
	return 0
}

// logPeriodic writes a line with what is known so far.
func (r *relay) logPeriodic() time.Duration {
	var now streaminfo.Info
	r.c.Look(func(i *streaminfo.Info) { now = *i })
	now.BytesSent, now.BytesReceived = r.sent.Load(), r.received.Load()
	r.log(&now, "TcpPeriodic")
	return r.logs.interval
}

// writeError tells a failure of the receiving side from one of the sending side.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

// resetBy reports that the side from which err's direction reads, or to which it
// writes, was the one that reset.
func resetBy(err error, writing bool) bool {
	var w writeError
	return errors.As(err, &w) == writing && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE))
}

// finish passes the end of a direction on: an orderly end as such, a reset as a reset.
// Anything else ends both directions.
func (d *direction) finish(err error) {
	switch {
	case err == nil:
		_ = d.to.CloseWrite() // the other end may be gone already
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		_ = d.to.Reset()
		_ = d.from.Reset()
	default:
		d.closeBoth()
	}
}

func (r *relay) closeBoth() {
	_ = r.up.Close()
	_ = r.down.Close()
}

// errDrained ends a relay whose listener drains (check_drain_close).
var errDrained = errors.New("draining")

// run moves bytes until from ends (nil) or either side fails.
func (d *direction) run() error {
	defer d.unsplice()
	for {
		n, err := d.step()
		d.count(n)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case d.checkDrain && d.draining():
			return errDrained
		}
	}
}

func (r *relay) draining() bool {
	select {
	case <-r.c.Draining:
		return true
	default:
		return false
	}
}

func (d *direction) count(n int) {
	if n < largeRead {
		d.streak = 0
	}
	if n == 0 {
		return
	}
	d.streak += n
	d.moved.Add(uint64(n))
	for _, c := range d.counters {
		c.Add(uint64(n))
	}
	d.last.Store(int64(time.Since(d.begin)))
}

// step moves what is there, by the kernel where much is.
func (d *direction) step() (int, error) {
	if d.streak >= spliceAfter {
		if d.splicer == nil {
			if src, dst := d.from.TCP(), d.to.TCP(); src != nil && dst != nil {
				d.splicer = newSplicer(src, dst)
			}
		}
		if d.splicer != nil {
			return d.splicer.move()
		}
	}
	d.unsplice()
	return d.copy()
}

func (d *direction) unsplice() {
	if d.splicer != nil {
		d.splicer.close()
		d.splicer = nil
	}
}

func (d *direction) copy() (int, error) {
	if err := d.from.WaitReadable(); err != nil {
		return 0, err
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	n, err := d.from.Read(buf[:])
	if n > 0 {
		if _, werr := d.to.Write(buf[:n]); werr != nil {
			return 0, writeError{werr}
		}
	}
	return n, err
}
