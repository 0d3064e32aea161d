package http2

import "time"

// restAfter is how long a connection without streams keeps its read buffer.
const restAfter = time.Second

// An idle takes the read buffer from a connection that does not use it. The link's lock
// guards it.
type idle struct {
	timer *time.Timer
	armed bool
	seen  uint32 // the link's last stream when the timer was armed
	due   bool   // the reader was woken to give up its buffer
}

func (i *idle) stop() {
	if i.timer != nil {
		i.timer.Stop()
	}
}

// rest is called when a stream has ended: if it was the last, the connection may be idle
// from now on.
func (l *link) rest() {
	i := &l.idle
	if l.open > 0 || i.armed || l.ended {
		return
	}
	i.armed, i.seen = true, l.last
	if i.timer == nil {
		i.timer = time.AfterFunc(restAfter, l.restDue)
	} else {
		i.timer.Reset(restAfter)
	}
}

func (l *link) restDue() {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := &l.idle
	i.armed = false
	switch {
	case l.open > 0 || l.ended:
	case i.seen != l.last:
		l.rest()
	default:
		i.due = true
		l.side.rest()
		l.wake()
	}
}
