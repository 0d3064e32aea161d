package listener

import (
	"sort"
	"time"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
)

// A Status is one listener as the admin pages show it.
type Status struct {
	Name      string
	Addresses []string // as bound: with the real port where port 0 was asked
	Proto     *listenerpb.Listener
	Updated   time.Time
	Warming   bool
	Direction string
}

// View lists listeners by name, those that warm after the active ones.
func (s *Set) View() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Status
	for _, l := range s.active {
		if c := l.current.Load(); c != nil {
			list = append(list, c.status(l.sockets, false))
		}
	}
	for _, c := range s.warming {
		list = append(list, c.status(nil, true))
	}
	sort.Slice(list, func(i, j int) bool {
		if list[i].Warming != list[j].Warming {
			return list[j].Warming
		}
		return list[i].Name < list[j].Name
	})
	return list
}

func (c *Config) status(sockets []*socket, warming bool) Status {
	st := Status{Name: c.name, Proto: c.proto, Updated: c.added, Warming: warming, Direction: c.direction}
	for _, a := range c.addresses {
		for _, s := range sockets {
			if s.asked == a {
				a = s.addr
			}
		}
		st.Addresses = append(st.Addresses, a.String())
	}
	return st
}
