// Package http1 is the HTTP/1.1 codec, both sides.
//
// A Server reads requests from a downstream connection and writes the answers; an
// Exchange is one request and its answer on an upstream connection. Heads are parsed
// in place: names and values are slices of the read buffer, which stays as it is
// until the next request (or Release). Bodies are read into what is left of that
// buffer or, when they are long, into a larger one. Heads and the body bytes at hand
// leave in one write.
//
// What is accepted and refused, and how, is what Envoy 1.40 does: bare LF ends a
// line and obs-fold is joined, but whitespace before a colon, repeated or malformed
// content-length, content-length together with transfer-encoding, any
// transfer-encoding but chunked, control characters, unknown methods, malformed chunk
// lines and connection fields that nominate forwarding fields are refused. Two Host fields are joined by a comma. Connection-level
// fields (connection and what it nominates, keep-alive, proxy-connection,
// transfer-encoding) end here; connection and upgrade are kept when they ask for
// another protocol.
package http1

import "github.com/lateen-mesh/lateen/proxy/http"

// MaxHeaders is how many fields a head may have unless an option says otherwise.
const MaxHeaders = 100

// MaxHeadBytes is how long a head may be unless an option says otherwise.
const MaxHeadBytes = 60 << 10

// An Error refuses a message that breaks the protocol; the connection is of no
// further use. Status is what a server answers, with the reason phrase as its body.
type Error struct {
	Status  int
	Details string // RESPONSE_CODE_DETAILS
}

// Error is the details.
func (e *Error) Error() string { return e.Details }

// The refusals.
var (
	errCodec         = &Error{400, "http1.codec_error"}
	errCharacters    = &Error{400, "http1.invalid_characters"}
	errBothLengths   = &Error{400, "http1.content_length_and_chunked_not_allowed"}
	errEncoding      = &Error{501, "http1.invalid_transfer_encoding"}
	errConnectBody   = &Error{400, "http1.body_disallowed"}
	errURL           = &Error{400, "http1.invalid_url"}
	errScheme        = &Error{400, "http1.invalid_scheme"}
	errHTTPS         = &Error{403, "http1.https_url_on_plaintext_connection"}
	errAuthority     = &Error{400, "http.invalid_authority"}
	errTooLarge      = &Error{431, "http1.headers_too_large"}
	errTooMany       = &Error{431, "http1.too_many_headers"}
	errTrailersLarge = &Error{431, "http1.trailers_too_large"}
	errNominations   = &Error{400, "http1.connection_header_rejected"}
	errVersion       = &Error{426, "low_version"}
)

// ReasonPhrase is the text after a status, as Envoy writes it: "Unknown" for what it
// does not know, 418 among them.
func ReasonPhrase(status int) string {
	if s, ok := reasons[status]; ok {
		return s
	}
	return "Unknown"
}

var reasons = map[int]string{
	100: "Continue", 101: "Switching Protocols",
	200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content", 205: "Reset Content",
	206: "Partial Content", 207: "Multi-Status", 208: "Already Reported", 226: "IM Used",
	300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified", 305: "Use Proxy",
	307: "Temporary Redirect", 308: "Permanent Redirect",
	400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
	406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout", 409: "Conflict", 410: "Gone",
	411: "Length Required", 412: "Precondition Failed", 413: "Payload Too Large", 414: "URI Too Long", 415: "Unsupported Media Type",
	416: "Range Not Satisfiable", 417: "Expectation Failed", 421: "Misdirected Request", 422: "Unprocessable Entity", 423: "Locked",
	424: "Failed Dependency", 426: "Upgrade Required", 428: "Precondition Required", 429: "Too Many Requests",
	431: "Request Header Fields Too Large",
	500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
	505: "HTTP Version Not Supported", 506: "Variant Also Negotiates", 507: "Insufficient Storage", 508: "Loop Detected",
	510: "Not Extended", 511: "Network Authentication Required",
}

// hasToken reports whether the comma separated list v has the token, which is in lower case.
func hasToken(v []byte, token string) bool {
	found := false
	eachToken(v, func(t []byte) {
		if http.EqualFold(t, token) {
			found = true
		}
	})
	return found
}

// eachToken calls f with each non-empty element of a comma separated list.
func eachToken(v []byte, f func([]byte)) {
	for len(v) > 0 {
		var t []byte
		if i := indexByte(v, ','); i >= 0 {
			t, v = v[:i], v[i+1:]
		} else {
			t, v = v, nil
		}
		if t = trim(t); len(t) > 0 {
			f(t)
		}
	}
}

// trim removes blanks at both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
