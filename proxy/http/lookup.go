package http

import (
	"bytes"
	"strconv"
)

// First returns the first value of a header, pseudo headers (":method", ":path",
// ":authority", ":scheme") included; "host" is ":authority". The name is in lower
// case. ok tells an empty value from none.
func (r *Request) First(name string) (value []byte, ok bool) {
	if v, pseudo := r.pseudo(name); pseudo {
		return v, v != nil
	}
	return r.Headers.First(name)
}

// Value returns the i-th value of a header, pseudo headers included; see Headers.Value.
func (r *Request) Value(name string, i int) (value []byte, ok bool) {
	if v, pseudo := r.pseudo(name); pseudo {
		return v, v != nil && i == 0
	}
	return r.Headers.Value(name, i)
}

func (r *Request) pseudo(name string) (value []byte, ok bool) {
	switch name {
	case ":method":
		return r.Method, true
	case ":path":
		return r.Path, true
	case ":authority", "host":
		return r.Authority, true
	case ":scheme":
		return r.Scheme, true
	}
	return nil, false
}

// IsGRPC reports that the request's content type is application/grpc, alone or with
// a subtype ("application/grpc+proto"); application/grpc-web is another protocol.
func (r *Request) IsGRPC() bool {
	const media = "application/grpc"
	v := r.Headers.Get("content-type")
	return bytes.HasPrefix(v, []byte(media)) && (len(v) == len(media) || v[len(media)] == '+')
}

// GRPCStatus is the gRPC status that gRPC's documents give to an HTTP status.
func GRPCStatus(status int) int {
	switch status {
	case 400:
		return 13
	case 401:
		return 16
	case 403:
		return 7
	case 404:
		return 12
	case 429, 502, 503, 504:
		return 14
	}
	return 2
}

// First returns the first value of a response header; ":status" is its status.
func (r *Response) First(name string) (value []byte, ok bool) {
	if name == ":status" {
		return r.statusText()
	}
	return r.Headers.First(name)
}

// Value returns the i-th value of a response header, ":status" included.
func (r *Response) Value(name string, i int) (value []byte, ok bool) {
	if name == ":status" {
		v, ok := r.statusText()
		return v, ok && i == 0
	}
	return r.Headers.Value(name, i)
}

func (r *Response) statusText() ([]byte, bool) {
	if r.Status == 0 {
		return nil, false
	}
	return strconv.AppendInt(nil, int64(r.Status), 10), true
}

// First returns the value of the first field of that name; ok tells an empty value from none.
func (h *Headers) First(name string) (value []byte, ok bool) {
	for i := range h.Fields {
		if EqualFold(h.Fields[i].Name, name) {
			return h.Fields[i].Value, true
		}
	}
	return nil, false
}

// Value returns the i-th value of a header as matchers see it: each field is a value
// of its own, but the fields of a header that Envoy keeps as one (Inline) are one
// value, joined by commas. It allocates only to join.
func (h *Headers) Value(name string, i int) (value []byte, ok bool) {
	n := 0
	for f := range h.Fields {
		if EqualFold(h.Fields[f].Name, name) {
			if n == i {
				value, ok = h.Fields[f].Value, true
			}
			n++
		}
	}
	if n < 2 || !Inline(name) {
		return value, ok
	}
	if i > 0 {
		return nil, false
	}
	return h.joined(name), true
}

// joined leaves out empty values, as Envoy does.
func (h *Headers) joined(name string) []byte {
	var all [][]byte
	for _, f := range h.Fields {
		if EqualFold(f.Name, name) && len(f.Value) > 0 {
			all = append(all, f.Value)
		}
	}
	return bytes.Join(all, []byte(","))
}

// Inline reports whether Envoy keeps a header as one field: a second one of that
// name is appended to the first after a comma. The name is in lower case.
func Inline(name string) bool { return inline[name] }

var inline = map[string]bool{
	"access-control-allow-credentials": true, "access-control-allow-headers": true, "access-control-allow-methods": true,
	"access-control-allow-origin": true, "access-control-expose-headers": true, "access-control-max-age": true,
	"accept": true, "accept-encoding": true, "access-control-request-headers": true, "access-control-request-method": true,
	"authorization": true, "cache-control": true, "connection": true, "content-encoding": true, "content-length": true,
	"content-type": true, "date": true, "etag": true, "expect": true, "forwarded": true, "grpc-timeout": true, "keep-alive": true,
	"location": true, "origin": true, "pragma": true, "proxy-connection": true, "referer": true, "server": true, "te": true,
	"upgrade": true, "user-agent": true, "vary": true, "via": true, "x-envoy-attempt-count": true, "x-envoy-decorator-operation": true,
	"x-envoy-original-path": true, "x-envoy-upstream-service-time": true, "x-forwarded-client-cert": true, "x-forwarded-for": true,
	"x-forwarded-host": true, "x-forwarded-port": true, "x-forwarded-proto": true, "x-request-id": true,
}
