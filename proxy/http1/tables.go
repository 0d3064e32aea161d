package http1

import "bytes"

func indexByte(b []byte, c byte) int { return bytes.IndexByte(b, c) }

// The classes of bytes.
const (
	isToken     = 1 << iota // may be in a field name
	isValue                 // may be in a field value
	isURL                   // may be in a request target
	isAuthority             // may be in a host
	isName                  // may be in the host of a URL
)

var class = func() (t [256]byte) {
	for c := range t {
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if alnum || c < 0x80 && bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), byte(c)) >= 0 {
			t[c] |= isToken
		}
		if c == '\t' || c >= 0x20 && c != 0x7f {
			t[c] |= isValue
		}
		if c > 0x20 && c < 0x7f {
			t[c] |= isURL
		}
		if alnum || c < 0x80 && bytes.IndexByte([]byte("!$%&'()*+,-.:;=@[]_~"), byte(c)) >= 0 {
			t[c] |= isAuthority
		}
		if alnum || c == '.' || c == '-' {
			t[c] |= isName
		}
	}
	return t
}()

// all reports whether every byte of b is of class k.
func all(b []byte, k byte) bool {
	for _, c := range b {
		if class[c]&k == 0 {
			return false
		}
	}
	return true
}

// knownMethod reports whether Envoy knows the method; it refuses all others.
func knownMethod(m []byte) bool {
	switch string(m) {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE",
		"COPY", "LOCK", "MKCOL", "MOVE", "PROPFIND", "PROPPATCH", "SEARCH", "UNLOCK", "BIND", "REBIND", "UNBIND", "ACL",
		"REPORT", "MKACTIVITY", "CHECKOUT", "MERGE", "M-SEARCH", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "PURGE",
		"MKCALENDAR", "LINK", "UNLINK", "SOURCE", "QUERY":
		return true
	}
	return false
}

// methodStart reports whether c begins a method that Envoy knows; anything else is
// refused before the line is complete (a TLS hello on a plain port).
func methodStart(c byte) bool { return bytes.IndexByte([]byte("ABCDGHLMNOPQRSTU"), c) >= 0 }
