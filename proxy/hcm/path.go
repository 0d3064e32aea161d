package hcm

import (
	"bytes"
	"slices"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// pathRules say how request paths are made canonical before anything looks at them.
type pathRules struct {
	normalize bool
	merge     bool
	escaped   hcmv3.HttpConnectionManager_PathWithEscapedSlashesAction
}

// A pathVerdict is what the rules make of a path.
type pathVerdict uint8

const (
	pathPasses pathVerdict = iota
	pathRejected
	pathRedirected // the client is sent to the canonical path
)

// The escaped slash actions, by short names.
const (
	rejectSlashes   = hcmv3.HttpConnectionManager_REJECT_REQUEST
	redirectSlashes = hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT
	unescapeSlashes = hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD
)

// apply makes the path of s canonical. A fragment is always refused.
func (p *pathRules) apply(s *http.Stream) pathVerdict {
	path := s.Request.Path
	if bytes.IndexByte(path, '#') >= 0 {
		return pathRejected
	}
	end := bytes.IndexByte(path, '?')
	if end < 0 {
		end = len(path)
	}
	if p.plain(path[:end]) {
		return pathPasses
	}
	verdict := pathPasses
	out := append(s.Scratch(), path[:end]...)
	start := len(s.Scratch())
	if out, verdict = p.slashes(out, start); verdict == pathRejected {
		s.Request.Path = s.Keep(append(out, path[end:]...))
		return verdict
	}
	if p.normalize {
		var ok bool
		if out, ok = canonical(out, start); !ok {
			return pathRejected
		}
	}
	if p.merge {
		out = mergeSlashes(out, start)
	}
	s.Request.Path = s.Keep(append(out, path[end:]...))
	return verdict
}

// plain reports that no rule changes the path.
func (p *pathRules) plain(path []byte) bool {
	for i, c := range path {
		if special[c] && (c != '.' || i > 0 && path[i-1] == '/') && (c != '/' || p.merge && i > 0 && path[i-1] == '/') {
			return false
		}
	}
	return true
}

// special bytes are those that a rule may concern.
var special = func() (t [256]bool) {
	for _, c := range []byte("%\\\"<>^`{|}./") {
		t[c] = true
	}
	return t
}()

// slashes treats %2F and %5C in out[start:] as the action says.
func (p *pathRules) slashes(out []byte, start int) ([]byte, pathVerdict) {
	if p.escaped != rejectSlashes && p.escaped != redirectSlashes && p.escaped != unescapeSlashes {
		return out, pathPasses
	}
	n, found := start, false
	for i := start; i < len(out); i++ {
		c := out[i]
		if c == '%' && i+2 < len(out) {
			switch v := unhex(out[i+1])<<4 | unhex(out[i+2]); v {
			case '/', '\\':
				c, found = byte(v), true
				i += 2
			}
		}
		out[n] = c
		n++
	}
	switch {
	case !found:
		return out[:n], pathPasses
	case p.escaped == rejectSlashes:
		return out[:n], pathRejected
	case p.escaped == redirectSlashes:
		return out[:n], pathRedirected
	}
	return out[:n], pathPasses
}

// unhex is the value of a hexadecimal digit, a number too large for one otherwise.
func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return 1 << 16
}

// canonical rewrites out[start:] as Envoy does: unreserved characters are decoded,
// what may not stand in a path is encoded, backslashes are slashes, dot segments are
// resolved. %00 is refused.
func canonical(out []byte, start int) ([]byte, bool) {
	from := append([]byte(nil), out[start:]...)
	out = out[:start]
	bare := start - 3 // where the last percent sign stands that begins no escape
	for i := 0; i < len(from); i++ {
		c := from[i]
		switch {
		case c == '%':
			v := escape(from[i:])
			switch {
			case v == 0:
				return out, false
			case v < 256 && unreserved(byte(v)):
				i += 2
				out = mend(append(out, byte(v)), bare, from[i+1:])
			default:
				if v >= 256 {
					bare = len(out)
				}
				out = append(out, c)
			}
		case c == '\\':
			out = append(out, '/')
		case bytes.IndexByte([]byte("\"<>^`{|}"), c) >= 0:
			out = append(out, '%', hexDigits[c>>4], hexDigits[c&15])
		default:
			out = append(out, c)
		}
	}
	return dots(out, start), true
}

// escape is the value of the escape that b begins with, 256 or more when it is none.
func escape(b []byte) int {
	if len(b) < 3 {
		return 1 << 16
	}
	return unhex(b[1])<<4 | unhex(b[2])
}

// mend keeps a character that was just decoded from completing an escape with the bare
// percent sign before it ("%%32e" must not become "%2e"): the sign is encoded.
func mend(out []byte, bare int, next []byte) []byte {
	after := out[max(bare, 0):]
	switch n := len(out) - bare; {
	case n == 2 && len(next) > 0 && escape([]byte{'%', after[1], next[0]}) < 256, n == 3 && escape(after) < 256:
		return slices.Insert(out, bare+1, '2', '5')
	}
	return out
}

const hexDigits = "0123456789ABCDEF"

func unreserved(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '.' || c == '_' || c == '~'
}

// dots resolves the segments "." and ".." of out[start:], parameters after ";" included.
func dots(out []byte, start int) []byte {
	w := start // out[start:w] is resolved; it is empty or ends before a slash
	for i := start; i < len(out); {
		end := i + 1
		for end < len(out) && out[end] != '/' {
			end++
		}
		name, _, _ := bytes.Cut(out[i+1:end], []byte(";"))
		switch {
		case string(name) == "..":
			if w > start {
				w = start + bytes.LastIndexByte(out[start:w], '/')
			}
			fallthrough
		case string(name) == ".":
			if end == len(out) {
				out[w] = '/'
				w++
			}
		default:
			w += copy(out[w:], out[i:end])
		}
		i = end
	}
	return out[:w]
}

// mergeSlashes makes one slash of several in out[start:].
func mergeSlashes(out []byte, start int) []byte {
	w := start
	for i := start; i < len(out); i++ {
		if out[i] == '/' && w > start && out[w-1] == '/' {
			continue
		}
		out[w] = out[i]
		w++
	}
	return out[:w]
}
