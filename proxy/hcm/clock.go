package hcm

import (
	"sync/atomic"
	"time"
)

// A clock keeps the text of the date header for the present second.
type clock struct{ now atomic.Pointer[second] }

type second struct {
	unix int64
	text []byte
}

// date is the value of the date header at t.
func (c *clock) date(t time.Time) []byte {
	unix := t.Unix()
	s := c.now.Load()
	if s == nil || s.unix != unix {
		s = &second{unix, t.UTC().AppendFormat(nil, "Mon, 02 Jan 2006 15:04:05 GMT")}
		c.now.Store(s)
	}
	return s.text
}
