package upstream

import (
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http2"
)

// A multi is one HTTP/2 connection of a pool, which carries many exchanges at once.
type multi struct {
	counted
	client *http2.Client

	// Below is guarded by the pool's lock.
	uses   uint32
	active int
	torn   bool      // it ended under an exchange
	used   time.Time // when the last exchange ended
	spent  bool      // it takes no more exchanges, and is closed after the last
	ended  bool
}

// share takes a new connection of HTTP/2 into use. It counts as on its way until those who
// come find it in use: they would dial another one otherwise.
func (p *Pool) share(c counted, generation int) {
	m := &multi{counted: c, used: time.Now()}
	m.client = http2.NewClient(&m.counted, p.opts.HTTP2, m)
	p.mu.Lock()
	p.dials--
	if !m.ended {
		p.shared = append(p.shared, m)
		p.watch()
	}
	p.serve()
	if generation != p.generation || p.closed { // the last that it serves are those who waited
		p.spend(m)
	}
	over := m.over()
	p.mu.Unlock()
	if over {
		m.client.Close()
	}
}

// join begins an exchange on a connection of HTTP/2 that has room, nil when there is
// none; the error says that there are too many. p.mu is held.
func (p *Pool) join() (http.ClientStream, error) {
	for _, m := range p.shared {
		if m.client.Room() == 0 {
			continue
		}
		if !p.opts.Limits.Requests.Take() {
			p.opts.Stats.RqActiveOverflow.Inc()
			return nil, overflow
		}
		s := m.client.Open()
		if s == nil { // the peer has changed its mind
			p.opts.Limits.Requests.Give()
			continue
		}
		p.charge()
		m.begun()
		return s, nil
	}
	return nil, nil
}

// begun notes an exchange. The pool's lock is held.
func (m *multi) begun() {
	p := m.pool
	m.active++
	m.uses++
	if most := p.opts.MaxRequestsPerConn; most > 0 && m.uses >= most {
		p.opts.Stats.CxMaxRequests.Inc()
		p.spend(m)
	}
}

// spend lets m take no more exchanges. p.mu is held.
func (p *Pool) spend(m *multi) {
	m.spent = true
	p.shared = without(p.shared, m)
}

// over reports that m is to be closed: nobody uses it, and nobody will. The pool's lock
// is held.
func (m *multi) over() bool { return m.spent && m.active == 0 && !m.ended }

// serve begins the exchanges of those who wait, as far as there is room. p.mu is held.
func (p *Pool) serve() {
	for len(p.line) > 0 {
		x, err := p.join()
		if x == nil && err == nil {
			break
		}
		p.first().result <- outcome{x, err}
	}
	p.grow()
}

// Vacated counts the end of an exchange.
func (m *multi) Vacated() { m.pool.discharge() }

// Finished gives the place of an exchange to who waits for one.
func (m *multi) Finished(c *http2.Client, s *http2.ClientStream) {
	p := m.pool
	p.mu.Lock()
	m.active--
	m.torn = m.torn || s.Broken() && c.Draining()
	m.used = time.Now()
	p.serve()
	over := m.over()
	p.mu.Unlock()
	if over {
		c.Close()
	}
}

// Changed takes note of what the peer says: it takes more or fewer exchanges, or none.
func (m *multi) Changed(c *http2.Client) {
	p := m.pool
	p.mu.Lock()
	if c.Draining() {
		p.spend(m)
	}
	p.serve()
	over := m.over()
	p.mu.Unlock()
	if over {
		c.Close()
	}
}

// Ended forgets a connection that is closed.
func (m *multi) Ended(_ *http2.Client, err error) {
	p, st := m.pool, m.pool.opts.Stats
	p.mu.Lock()
	m.ended = true
	p.spend(m)
	torn := m.torn
	p.mu.Unlock()
	if torn {
		st.CxDestroyWithActive.Inc()
		if err != nil {
			st.CxDestroyRemoteWithActive.Inc()
		} else {
			st.CxDestroyLocalWithActive.Inc()
		}
	}
	m.closed(err != nil)
}

// sweepShared takes connections of HTTP/2 that are unused or old out of use and returns
// those that are to be closed now. p.mu is held.
func (p *Pool) sweepShared(now time.Time) (over []*multi) {
	for i := len(p.shared) - 1; i >= 0; i-- {
		m := p.shared[i]
		switch {
		case p.aged(m.born, now):
			p.opts.Stats.CxMaxDuration.Inc()
			p.spend(m)
		case m.active == 0 && p.opts.IdleTimeout > 0 && now.Sub(m.used) >= p.opts.IdleTimeout:
			p.opts.Stats.CxIdleTimeout.Inc()
			p.spend(m)
		}
		if m.over() {
			over = append(over, m)
		}
	}
	return over
}
