// Package format is the substitution format language of Envoy: text with command
// operators such as %REQ(USER-AGENT)% and %RESPONSE_CODE%. Access logs, header
// values of routes and local replies share it.
//
// Parse compiles a text once, ParseJSON a JSON template; Append then writes one
// record and allocates nothing. A value that a record does not have is "-" in text
// and null in JSON.
package format

import (
	"errors"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// A Record is what operators read: the facts of a stream and, where there is HTTP,
// its heads. Nil fields are absent.
type Record struct {
	Info             *streaminfo.Info
	Request          *http.Request
	Response         *http.Response
	ResponseTrailers *http.Headers
	// LocalReplyBody is LOCAL_REPLY_BODY, set while a local reply is formatted.
	LocalReplyBody []byte
}

// Of is the record of an HTTP stream. The stream is only read.
func Of(s *http.Stream) Record {
	return Record{Info: &s.Info, Request: &s.Request, Response: &s.Response}
}

// A Format is a compiled text or JSON template. It is immutable.
type Format struct{}

// Append appends the record as the format describes it. It allocates nothing beyond
// the capacity of dst.
func (f *Format) Append(dst []byte, rec Record) []byte { return dst }

// Parse compiles a text with command operators. Its error names the operator that
// is unknown or wrongly used.
func Parse(text string) (*Format, error) { return nil, errors.New("not built yet") }

// ParseHeader is Parse for the value of a header: what a record does not have is empty.
func ParseHeader(text string) (*Format, error) { return nil, errors.New("not built yet") }
