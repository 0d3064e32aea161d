package cluster

import (
	"fmt"
	"reflect"

	"github.com/lateen-mesh/lateen/proxy/transport"
)

// A match is a transport socket for the endpoints whose metadata has all of criteria.
type match struct {
	criteria map[string]any // empty: all endpoints
	socket   transport.ClientSocket
}

// matchKey is the endpoint metadata that transport_socket_matches look at.
const matchKey = "envoy.transport_socket_match"

// unspoken are ALPN protocols that no upstream codec speaks, and the original's
// private one, which announces a prefix that we do not send.
var unspoken = []string{"h2", "istio-peer-exchange"}

// makeSockets compiles the transport sockets: the matches in their order, then the
// cluster's own for everything else.
func (c *Cluster) makeSockets(secrets *transport.Secrets) (err error) {
	env := transport.Env{Secrets: secrets, Stats: c.scope, Unspoken: unspoken}
	if c.config.http.h2 {
		env.Unspoken = nil
	}
	defer func() {
		if err != nil {
			c.closeSockets()
		}
	}()
	for i, m := range c.config.matches {
		s, err := transport.DecodeClient(m.GetTransportSocket(), env)
		if err != nil {
			return fmt.Errorf("transport_socket_matches[%d].%w", i, err)
		}
		c.sockets = append(c.sockets, match{criteria: m.GetMatch().AsMap(), socket: s})
	}
	s, err := transport.DecodeClient(c.config.socket, env)
	if err != nil {
		return err
	}
	c.sockets = append(c.sockets, match{socket: s})
	c.config.matches, c.config.socket = nil, nil // compiled
	return nil
}

func (c *Cluster) closeSockets() {
	for _, m := range c.sockets {
		m.socket.Close()
	}
}

// socketFor is the transport socket of an endpoint with that metadata.
func (c *Cluster) socketFor(metadata map[string]map[string]any) transport.ClientSocket {
	labels := metadata[matchKey]
	for _, m := range c.sockets {
		if m.covers(labels) {
			return m.socket
		}
	}
	return transport.Plain{} // not reached: the last socket covers everything
}

func (m *match) covers(labels map[string]any) bool {
	for k, v := range m.criteria {
		if !reflect.DeepEqual(labels[k], v) {
			return false
		}
	}
	return true
}
