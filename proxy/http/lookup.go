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

// Joined is First with the values of all fields of that name, joined by a comma,
// as header matchers read them. It allocates only when there are several.
func (r *Request) Joined(name string) (value []byte, ok bool) {
	if v, pseudo := r.pseudo(name); pseudo {
		return v, v != nil
	}
	return r.Headers.Joined(name)
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

// First returns the first value of a response header; ":status" is its status.
func (r *Response) First(name string) (value []byte, ok bool) {
	if name == ":status" {
		return r.statusText()
	}
	return r.Headers.First(name)
}

// Joined is First with the values of all fields of that name, joined by a comma.
func (r *Response) Joined(name string) (value []byte, ok bool) {
	if name == ":status" {
		return r.statusText()
	}
	return r.Headers.Joined(name)
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

// Joined returns the values of all fields of that name, joined by a comma. It
// allocates only when there are several.
func (h *Headers) Joined(name string) (value []byte, ok bool) {
	found := 0
	for i := range h.Fields {
		if !EqualFold(h.Fields[i].Name, name) {
			continue
		}
		switch found++; found {
		case 1:
			value = h.Fields[i].Value
		case 2:
			value = append(append(bytes.Clone(value), ','), h.Fields[i].Value...)
		default:
			value = append(append(value, ','), h.Fields[i].Value...)
		}
	}
	return value, found > 0
}

// IsGRPC reports that the request's content type is application/grpc, alone or with
// a subtype ("application/grpc+proto"); application/grpc-web is another protocol.
func (r *Request) IsGRPC() bool {
	const media = "application/grpc"
	v := r.Headers.Get("content-type")
	return bytes.HasPrefix(v, []byte(media)) && (len(v) == len(media) || v[len(media)] == '+')
}
