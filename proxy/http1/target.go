package http1

import (
	"bytes"

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
	return s.absolute(r, t)
}

func isHostPort(t []byte) bool {
	i := bytes.LastIndexByte(t, ':')
	if i <= 0 || i == len(t)-1 {
		return false
	}
	for _, c := range t[i+1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
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
	if at := bytes.LastIndexByte(authority, '@'); at >= 0 {
		authority = authority[at+1:]
	}
	if len(authority) == 0 {
		return errURL
	}
	if path == nil {
		path = slash
	}
	r.Authority, r.Path = authority, path
	return nil
}

var slash = []byte("/")

func alpha(b []byte) bool {
	for _, c := range b {
		if c = http.Lower(c); c < 'a' || c > 'z' {
			return false
		}
	}
	return true
}
