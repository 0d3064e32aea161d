package cluster

import (
	"fmt"
	"reflect"

	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// A matched is a transport socket for the endpoints whose metadata has all of criteria.
type matched struct {
	criteria map[string]any // empty: all endpoints
	socket   transport.ClientSocket
}

// matchKey is the endpoint metadata that transport_socket_matches look at.
const matchKey = "envoy.transport_socket_match"

// makeSockets compiles the transport sockets: the matches in their order, then the
// cluster's own for everything else.
func (c *Cluster) makeSockets(secrets *transport.Secrets) (err error) {
	env := transport.Env{Secrets: secrets, Stats: c.scope}
	if c.config.exchange == "" { // it announces what we do not send then
		env.Unspoken = []string{"istio-peer-exchange"}
	}
	if c.config.http.version == upstream.HTTP1 && !c.config.http.follow {
		env.Unspoken = append(env.Unspoken, "h2") // whatever is configured
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
		c.sockets = append(c.sockets, matched{criteria: m.GetMatch().AsMap(), socket: s})
		c.noteTeller(s)
	}
	s, err := transport.DecodeClient(c.config.socket, env)
	if err != nil {
		return err
	}
	c.sockets = append(c.sockets, matched{socket: s})
	c.noteTeller(s)
	c.config.matches, c.config.socket = nil, nil // compiled
	return c.checkALPN()
}

func (c *Cluster) noteTeller(s transport.ClientSocket) {
	if _, ok := s.(transport.Teller); ok {
		c.tells = true
	}
}

// checkALPN refuses a cluster whose version ALPN is to settle, where it cannot.
func (c *Cluster) checkALPN() error {
	for _, m := range c.sockets {
		if c.config.http.version == upstream.ALPN && !m.socket.Secure() {
			return fmt.Errorf("ALPN configured for cluster %s which has a non-ALPN transport socket", c.Name())
		}
	}
	return nil
}

func (c *Cluster) closeSockets() {
	for _, m := range c.sockets {
		m.socket.Close()
	}
}

// socketFor is the transport socket of an endpoint with that metadata, in a locality with
// that metadata, which decide where the endpoint's match nothing.
func (c *Cluster) socketFor(metadata, locality map[string]map[string]any) transport.ClientSocket {
	own := len(c.sockets) - 1 // the cluster's own covers the rest
	for _, labels := range []map[string]any{metadata[matchKey], locality[matchKey]} {
		for _, m := range c.sockets[:own] {
			if m.covers(labels) {
				return m.socket
			}
		}
	}
	return c.sockets[own].socket
}

func (m *matched) covers(labels map[string]any) bool {
	for k, v := range m.criteria {
		if !reflect.DeepEqual(labels[k], v) {
			return false
		}
	}
	return true
}
