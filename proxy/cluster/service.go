package cluster

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// A meshService is what a control plane says in the metadata of a cluster about the
// service that it is for.
type meshService struct{ host, name, namespace string }

// serviceOf reads the first of the services in the metadata.
func serviceOf(c *clusterv3.Cluster) meshService {
	list := c.GetMetadata().GetFilterMetadata()["istio"].GetFields()["services"].GetListValue().GetValues()
	if len(list) == 0 {
		return meshService{}
	}
	f := list[0].GetStructValue().GetFields()
	return meshService{f["host"].GetStringValue(), f["name"].GetStringValue(), f["namespace"].GetStringValue()}
}

// Service is what the control plane says of a cluster: host, name and namespace of the
// service that it is for, all "" where it says nothing or has no such cluster.
func (cs *Clusters) Service(cluster string) (host, name, namespace string) {
	c := cs.Get(cluster)
	if c == nil {
		return "", "", ""
	}
	s := c.config.meshService
	return s.host, s.name, s.namespace
}

// Speaks is the version that a cluster speaks with its endpoints for a client of another
// one, HTTP/1.1 where a handshake will tell; false when there is no such cluster.
func (cs *Clusters) Speaks(cluster string, client http.Protocol) (http.Protocol, bool) {
	c := cs.Get(cluster)
	switch {
	case c == nil:
		return 0, false
	case c.config.http.follow:
		return client, true
	case c.config.http.version == upstream.HTTP2:
		return http.HTTP2, true
	}
	return http.HTTP11, true
}

// exchanged lets a new TCP connection begin with what peers tell each other, where the
// cluster's filters and the handshake say so.
func (c *Cluster) exchanged(conn transport.Conn) transport.Conn {
	st := conn.TLS()
	if c.config.exchange == "" || c.parent.opts.Exchange == nil || st == nil || st.NegotiatedProtocol != c.config.exchange {
		return conn
	}
	return c.parent.opts.Exchange(conn)
}
