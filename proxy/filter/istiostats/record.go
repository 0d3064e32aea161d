package istiostats

import (
	"net/netip"
	"strconv"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/peer"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// roots are the attributes that expressions may begin with.
var roots = map[string]bool{
	"request": true, "response": true, "source": true, "destination": true, "connection": true, "upstream": true, "node": true,
	"xds": true, "metadata": true, "filter_state": true, "upstream_peer": true, "downstream_peer": true,
	"listener_direction": true, "route_name": true, "cluster_name": true,
}

// A record is what is known of an exchange when it is counted.
type record struct {
	info   *streaminfo.Info
	stream *http.Stream // nil for TCP
	env    *environment
	remote *peer.Workload // at the other end of the mesh, nil when not known
}

// attribute is the value of a path, nil when there is none.
func (r *record) attribute(path []string) value {
	root, rest := path[0], path[1:]
	switch root {
	case "route_name", "cluster_name", "listener_direction":
		return r.xds([]string{root})
	case "upstream_peer", "downstream_peer":
		return r.peerOf(root, rest)
	case "filter_state":
		if len(rest) > 0 && (rest[0] == "upstream_peer" || rest[0] == "downstream_peer") {
			return r.peerOf(rest[0], rest[1:])
		}
		return nil
	}
	if len(rest) == 0 {
		return nil
	}
	switch root {
	case "request":
		return r.request(rest)
	case "response":
		return r.response(rest)
	case "source":
		return address(r.info.DownstreamRemote, rest[0], r.info.PeerSubject)
	case "destination":
		return address(r.info.DownstreamLocal, rest[0], "")
	case "connection":
		return r.connection(rest)
	case "upstream":
		return r.upstream(rest[0])
	case "node":
		return r.env.nodeOf(rest)
	case "xds":
		return r.xds(rest)
	case "metadata":
		return r.metadata(rest)
	}
	return nil
}

// some is a text that is there.
func some[T ~string | ~[]byte](v T) value {
	if len(v) == 0 {
		return nil
	}
	return string(v)
}

func (r *record) request(path []string) value {
	if r.stream == nil {
		return nil
	}
	q := &r.stream.Request
	switch path[0] {
	case "path":
		return some(q.Path)
	case "url_path":
		p := q.Path
		for i, c := range p {
			if c == '?' {
				return some(p[:i])
			}
		}
		return some(p)
	case "host":
		return some(q.Authority)
	case "method":
		return some(q.Method)
	case "scheme":
		return some(q.Scheme)
	case "protocol":
		return some(r.info.Protocol)
	case "id":
		return some(q.Headers.Get("x-request-id"))
	case "useragent":
		return some(q.Headers.Get("user-agent"))
	case "referer":
		return some(q.Headers.Get("referer"))
	case "size":
		return int64(r.info.BytesReceived)
	case "total_size":
		return int64(r.info.BytesReceived) + int64(requestHead(q))
	case "headers":
		return header(&q.Headers, path)
	}
	return nil
}

func (r *record) response(path []string) value {
	switch path[0] {
	case "code":
		return int64(r.info.Code)
	case "code_details":
		return some(r.info.CodeDetails)
	case "flags":
		return r.info.Flags.String()
	case "size":
		return int64(r.info.BytesSent)
	}
	if r.stream == nil {
		return nil
	}
	rec := format.Of(r.stream)
	switch path[0] {
	case "headers":
		return header(&r.stream.Response.Headers, path)
	case "trailers":
		if rec.ResponseTrailers != nil {
			return header(rec.ResponseTrailers, path)
		}
	case "grpc_status":
		if n, ok := format.GRPCStatus(rec); ok {
			return int64(n)
		}
	case "total_size":
		return int64(r.info.BytesSent) + int64(responseHead(&r.stream.Response))
	}
	return nil
}

func header(h *http.Headers, path []string) value {
	if len(path) < 2 {
		return nil
	}
	return some(h.Get(path[1]))
}

func address(a netip.AddrPort, member, subject string) value {
	switch {
	case member == "principal":
		return some(subject)
	case !a.IsValid():
		return nil
	case member == "address":
		return a.String()
	case member == "port":
		return int64(a.Port())
	}
	return nil
}

func (r *record) connection(path []string) value {
	i := r.info
	switch path[0] {
	case "id":
		return int64(i.ConnectionID)
	case "mtls":
		return i.Peer != nil
	case "requested_server_name":
		return some(i.ServerName)
	case "tls_version":
		return some(i.TLSVersion)
	case "uri_san_peer_certificate":
		return some(first(i.PeerURISANs))
	case "uri_san_local_certificate":
		return some(first(i.LocalURISANs))
	case "dns_san_peer_certificate":
		return some(first(i.PeerDNSSANs))
	case "subject_peer_certificate":
		return some(i.PeerSubject)
	case "termination_details":
		return some(i.TerminationDetails)
	}
	return nil
}

func (r *record) upstream(member string) value {
	i := r.info
	switch {
	case member == "transport_failure_reason":
		return some(i.UpstreamFailureReason)
	case member == "local_address" && i.UpstreamLocal.IsValid():
		return i.UpstreamLocal.String()
	case i.Upstream == nil:
	case member == "address":
		return i.Upstream.Address
	case member == "port":
		if a, err := netip.ParseAddrPort(i.Upstream.Address); err == nil {
			return int64(a.Port())
		}
	}
	return nil
}

func (r *record) xds(path []string) value {
	switch path[0] {
	case "route_name":
		return some(r.info.RouteName)
	case "cluster_name":
		return some(r.info.Cluster)
	case "filter_chain_name":
		return some(r.info.FilterChain)
	case "virtual_host_name":
		return some(r.info.VirtualHost)
	case "listener_direction":
		return r.env.direction
	case "node":
		if len(path) > 1 {
			return r.env.nodeOf(path[1:])
		}
	}
	return nil
}

// metadata is dynamic metadata: filter_metadata, the filter's name, members.
func (r *record) metadata(path []string) value {
	if path[0] != "filter_metadata" || len(path) < 3 {
		return nil
	}
	var v any = r.info.Metadata[path[1]]
	for _, key := range path[2:] {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	switch v := v.(type) {
	case string, bool:
		return v
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return nil
}

func (r *record) peerOf(side string, path []string) value {
	k := r.info.DownstreamPeer
	if side == "upstream_peer" {
		k = r.info.UpstreamPeer
	}
	var w *peer.Workload
	if k != nil {
		w = k.Workload()
	}
	if w == nil && side == "upstream_peer" == r.env.source {
		w = r.remote
	}
	if w == nil || len(path) == 0 {
		return nil
	}
	switch path[0] {
	case "workload":
		return some(w.Name)
	case "namespace":
		return some(w.Namespace)
	case "cluster":
		return some(w.Cluster)
	case "service", "canonical_service":
		return some(w.Service)
	case "revision", "canonical_revision":
		return some(w.Revision)
	case "app":
		return some(w.App)
	case "version":
		return some(w.Version)
	case "name":
		return some(w.Instance)
	case "labels":
		if len(path) > 1 {
			return some(w.Labels[path[1]])
		}
	}
	return nil
}

// nodeOf is what the proxy's own node says.
func (e *environment) nodeOf(path []string) value {
	if len(path) == 0 {
		return nil
	}
	switch path[0] {
	case "id":
		return some(e.ID)
	case "cluster":
		return some(e.ServiceCluster)
	case "metadata":
		v := structpb.NewStructValue(e.Metadata)
		for _, key := range path[1:] {
			v = v.GetStructValue().GetFields()[key]
		}
		return some(v.GetStringValue())
	}
	return nil
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// requestHead is the size of a request's head as HTTP/1.1 writes it, in bytes.
func requestHead(q *http.Request) int {
	return len(q.Method) + len(q.Path) + len(q.Authority) + len(" HTTP/1.1\r\n host: \r\n\r\n") + fields(&q.Headers)
}

func responseHead(p *http.Response) int { return len("HTTP/1.1 200 OK\r\n\r\n") + fields(&p.Headers) }

func fields(h *http.Headers) int {
	n := 0
	for i := range h.Fields {
		n += len(h.Fields[i].Name) + len(h.Fields[i].Value) + len(": \r\n")
	}
	return n
}
