package http1

import (
	"bytes"
	"net/netip"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// requestTarget splits the target of r into authority and path.
func (s *Server) requestTarget(r *http.Request) error {
	r.Authority = s.framing.host
	t := r.Path
	switch {
	case s.connect:
		if t[0] == '/' || !isHostPort(t) {
			return errURL
		}
		r.Authority, r.Path = t, nil
		return nil
	case t[0] == '/':
		return nil
	case len(t) == 1 && t[0] == '*':
		if string(r.Method) != "OPTIONS" {
			return errURL
		}
		return nil
	}
	if s.opts.KeepAbsolute {
		return nil
	}
	return s.absolute(r, t)
}

// isHostPort reports that t is a host as URLs have it, with a port.
func isHostPort(t []byte) bool {
	host, port, ok := cutPort(t)
	return ok && port != nil && isHost(host)
}

// cutPort takes apart host and port, which is nil where there is none; ok says that
// the port is one.
func cutPort(t []byte) (host, port []byte, ok bool) {
	i := bytes.LastIndexByte(t, ':')
	if i < 0 || bytes.IndexByte(t[i:], ']') >= 0 {
		return t, nil, true
	}
	host, port = t[:i], t[i+1:]
	n, ok := length(port)
	return host, port, ok && n <= 65535
}

// isHost reports that h is a name of letters, digits, dots and dashes, or an address of
// IPv6 in brackets: what Envoy takes in the URL of a request, where it is stricter than
// in a host field.
func isHost(h []byte) bool {
	if n := len(h); n > 2 && h[0] == '[' && h[n-1] == ']' {
		a, err := netip.ParseAddr(string(h[1 : n-1]))
		return err == nil && a.Is6() && a.Zone() == ""
	}
	return len(h) > 0 && all(h, isName)
}

// absolute takes apart scheme://authority/path; its authority replaces Host.
func (s *Server) absolute(r *http.Request, t []byte) error {
	i := bytes.Index(t, []byte("://"))
	if i <= 0 || !alpha(t[:i]) {
		return errCodec
	}
	scheme, rest := t[:i], t[i+3:]
	switch {
	case http.EqualFold(scheme, "http"):
	case http.EqualFold(scheme, "https"):
		if !s.opts.AllowHTTPS {
			return errHTTPS
		}
	default:
		return errScheme
	}
	end := bytes.IndexAny(rest, "/?#")
	authority, path := rest, []byte(nil)
	if end >= 0 {
		authority, path = rest[:end], rest[end:]
	}
	if user, host, ok := bytes.Cut(authority, at); ok {
		if bytes.Contains(host, at) {
			return errCodec
		}
		_, authority = user, host
	}
	if host, _, ok := cutPort(authority); !ok || !isHost(host) {
		return errURL
	}
	if path == nil {
		path = slash
	}
	r.Authority, r.Path = authority, path
	return nil
}

var slash, at = []byte("/"), []byte("@")

func alpha(b []byte) bool {
	for _, c := range b {
		if c = http.Lower(c); c < 'a' || c > 'z' {
			return false
		}
	}
	return true
}
