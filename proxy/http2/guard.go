package http2

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"golang.org/x/net/http2"
)

// A guard counts what a peer sends that is cheap for it and dear for us. It belongs to
// the goroutine that reads.
type guard struct {
	opened        uint64 // streams the peer opened (Server), we did (Client)
	emptyFrames   int
	priorities    uint64
	windowUpdates uint64
}

// empty counts frames of a body or head without payload and end (CVE-2019-9518).
func (g *guard) empty(l *link, id uint32, is bool) error {
	if !is {
		g.emptyFrames = 0
		return nil
	}
	if g.emptyFrames++; g.emptyFrames > max(l.opts.MaxEmptyFrames, 0) {
		l.opts.Stats.InboundEmptyFramesFlood.Inc()
		return &connError{code: CodeEnhanceYourCalm, text: "too many empty frames", quiet: true, stream: id, own: "http2.inbound_empty_frames_flood"}
	}
	return nil
}

// priority counts PRIORITY (CVE-2019-9513).
func (g *guard) priority(l *link) error {
	if g.priorities++; g.priorities > uint64(max(l.opts.MaxPriorityFrames, 0))*(1+g.opened) {
		l.opts.Stats.InboundPriorityFramesFlood.Inc()
		return flood("Too many PRIORITY frames")
	}
	return nil
}

// windowUpdate counts WINDOW_UPDATE (CVE-2019-9517 makes us wait for windows, and this is
// its busy form).
func (g *guard) windowUpdate(l *link) error {
	if g.windowUpdates++; g.windowUpdates > 5+2*(g.opened+uint64(max(l.opts.MaxWindowUpdates, 0))*l.sentData) {
		l.opts.Stats.InboundWindowUpdateFramesFlood.Inc()
		return flood("Too many WINDOW_UPDATE frames")
	}
	return nil
}

// A resetGuard watches clients that open streams and reset them at once (CVE-2023-44487).
type resetGuard struct {
	min               int
	within            time.Duration
	closed, premature int
}

func (g *resetGuard) init(o *ServerOptions) {
	if g.min, g.within = o.PrematureResetMinStreams, o.PrematureResetTime; g.min == 0 {
		g.min = 500
	}
	if g.within == 0 {
		g.within = time.Second
	}
}

// closes counts a stream that has ended; reset says that the client did it.
func (g *resetGuard) closes(reset bool, started time.Time) error {
	g.closed++
	if !reset || g.min < 0 || time.Since(started) >= g.within {
		return nil
	}
	if g.premature++; 2*g.premature >= max(g.closed, g.min) {
		return flood("too many premature resets")
	}
	return nil
}

// An alive asks a silent peer by PING. The link's lock guards it.
type alive struct {
	l      *link
	timer  *time.Timer
	asked  bool
	number uint64
	heard  time.Time // when a frame came last, where that matters
}

func (a *alive) start(l *link) {
	if a.l = l; l.opts.KeepAlive > 0 {
		a.timer = time.AfterFunc(a.interval(), a.fire)
	}
}

// interval is KeepAlive and the jitter.
func (a *alive) interval() time.Duration {
	o := &a.l.opts
	return o.KeepAlive + time.Duration(rand.Float64()*o.KeepAliveJitter/100*float64(o.KeepAlive))
}

func (a *alive) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
}

// fire asks, or gives up when the last question has no answer.
func (a *alive) fire() {
	l := a.l
	l.mu.Lock()
	defer l.unlock()
	switch {
	case l.ended:
	case a.asked:
		l.opts.Stats.KeepaliveTimeout.Inc()
		l.fatal(errKeepAlive)
	default:
		a.ask()
	}
}

// ask sends a PING and waits for its answer.
func (a *alive) ask() {
	l := a.l
	if a.asked || l.ended {
		return
	}
	a.asked = true
	a.number++
	l.out = appendFrame(l.out, 8, http2.FramePing, 0, 0)
	l.out = binary.BigEndian.AppendUint64(l.out, a.number)
	l.counted(true)
	l.kick()
	timeout := l.opts.KeepAliveTimeout
	if timeout == 0 {
		timeout = 20 * time.Second
	}
	if a.timer == nil {
		a.timer = time.AfterFunc(timeout, a.fire)
	} else {
		a.timer.Reset(timeout)
	}
}

// hear notes that the peer lives.
func (a *alive) hear() {
	if a.l.opts.IdleKeepAlive > 0 {
		a.heard = time.Now()
	}
}

// begins asks before an exchange on a connection that was idle for long.
func (a *alive) begins() {
	if d := a.l.opts.IdleKeepAlive; d > 0 && time.Since(a.heard) >= d {
		a.ask()
	}
}

// answered takes the peer's answer.
func (a *alive) answered(payload []byte) {
	if !a.asked || binary.BigEndian.Uint64(payload) != a.number {
		return
	}
	a.asked = false
	if a.l.opts.KeepAlive > 0 {
		a.timer.Reset(a.interval())
	} else {
		a.timer.Stop()
	}
}
