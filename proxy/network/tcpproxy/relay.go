package tcpproxy

import (
	"errors"
	"io"
	"os"
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
	// spliceRun ends a splice now and then, so that stats grow while bytes flow.
	spliceRun = 64 << 20
	// tickMax is the longest time that a direction waits before it looks at the clock.
	tickMax = time.Minute
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// relay is one connection's two directions.
type relay struct {
	down, up transport.Conn
	idle     time.Duration
	tick     time.Duration // 0: wait for ever
	last     atomic.Int64  // time of the last byte, in ns since begin
	begin    time.Time
}

// a direction moves the bytes of one side to the other.
type direction struct {
	*relay
	from, to transport.Conn
	moved    *uint64           // Info's count
	counters [2]*stats.Counter // of the listener's side and of the cluster
	streak   int               // bytes since the last read that was not large
}

// errIdle ends a relay that has been silent for the idle timeout.
var errIdle = errors.New("idle timeout")

func (f *filter) relay(c *network.Conn, up transport.Conn, s *upstream.Stats) {
	r := &relay{down: c.Conn, up: up, idle: f.idle, begin: time.Now()}
	if f.idle > 0 {
		r.tick = min(max(f.idle/8, time.Millisecond), tickMax)
	}
	if f.maxDuration > 0 {
		left := f.maxDuration - time.Since(c.Info.Start)
		timer := time.AfterFunc(left, func() {
			f.stats.maxDuration.Inc()
			r.closeBoth()
		})
		defer timer.Stop()
	}
	ended := make(chan error, 1)
	go func() {
		d := direction{relay: r, from: up, to: c.Conn, moved: &c.Info.BytesSent, counters: [2]*stats.Counter{f.stats.tx, s.CxRxBytes}}
		err := d.run()
		d.finish(err)
		ended <- err
	}()
	d := direction{relay: r, from: c.Conn, to: up, moved: &c.Info.BytesReceived, counters: [2]*stats.Counter{f.stats.rx, s.CxTxBytes}}
	downErr := d.run()
	d.finish(downErr)
	upErr := <-ended
	r.closeBoth()
	switch {
	case resetBy(upErr, false), resetBy(downErr, true):
		c.Info.Flags.Set(streaminfo.UpstreamRemoteReset)
	case errors.Is(upErr, errIdle), errors.Is(downErr, errIdle):
		f.stats.idle.Inc()
	}
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

// run moves bytes until from ends (nil), either side fails, or nothing has moved in
// either direction for the idle timeout.
func (d *direction) run() error {
	for {
		if d.tick > 0 {
			if err := d.from.SetReadDeadline(time.Now().Add(d.tick)); err != nil {
				return err
			}
		}
		n, err := d.step()
		d.count(n)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			if time.Since(d.begin)-time.Duration(d.last.Load()) >= d.idle {
				return errIdle
			}
		case err != nil:
			return err
		}
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
	*d.moved += uint64(n)
	for _, c := range d.counters {
		c.Add(uint64(n))
	}
	d.last.Store(int64(time.Since(d.begin)))
}

func (d *direction) step() (int, error) {
	if d.streak >= spliceAfter {
		if src, dst := d.from.TCP(), d.to.TCP(); src != nil && dst != nil {
			n, err := io.Copy(dst, io.LimitReader(src, spliceRun))
			switch {
			case err == nil && n < spliceRun:
				err = io.EOF
			case errors.Is(err, syscall.EPIPE): // only a write fails so
				err = writeError{err}
			}
			return int(n), err
		}
	}
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
