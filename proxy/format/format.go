// Package format is the substitution format language of Envoy: text with command
// operators such as %REQ(USER-AGENT)% and %RESPONSE_CODE%. Access logs, header
// values of routes and local replies share it.
//
// Parse compiles a text, ParseHeader the value of a header, ParseJSON a JSON
// template; New chooses by a SubstitutionFormatString. Append then writes one record
// and allocates nothing. What a record does not have is "-" in text, empty in a
// header value and null in JSON; formats that omit empty values leave it out.
//
// An operator is refused by name when it is unknown, wrongly used, or when the proxy
// does not gather the fact behind it. operators.go has the table of all of them.
package format

import (
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// A Record is what operators read: the facts of a stream and, where there is HTTP,
// its heads. Info must be set; other nil fields are absent.
type Record struct {
	Info             *streaminfo.Info
	Request          *http.Request
	Response         *http.Response
	ResponseTrailers *http.Headers
	Route            http.RouteConfig
	// LocalReplyBody is LOCAL_REPLY_BODY, set while a local reply is formatted.
	LocalReplyBody []byte
}

// Of is the record of an HTTP stream. Response trailers are in it once they were read.
func Of(s *http.Stream) Record {
	r := Record{Info: &s.Info, Request: &s.Request, Response: &s.Response, Route: s.Route}
	if s.Response.Body != nil && s.Response.Body.Done() {
		r.ResponseTrailers = s.Response.Body.Trailers()
	}
	return r
}

// A Format is a compiled text or JSON template. It is immutable.
type Format struct {
	parts   []part
	missing string // what stands for an absent value
	json    node   // nil for a text
	omit    bool   // of a JSON format: leave absent values out
}

// A part of a text: a literal, or an operator.
type part struct {
	literal string
	op      *operation // nil: literal
}

// An operation appends one value of a record; false says that the record has none,
// and then it has appended nothing.
type operation struct {
	write func(dst []byte, rec Record) ([]byte, bool)
	// json appends the value as JSON; nil: the text as a string.
	json func(dst []byte, rec Record) ([]byte, bool)
}

// Append appends the record as the format describes it. It allocates nothing beyond
// the capacity of dst. A JSON record ends in a newline, a text as it was written.
func (f *Format) Append(dst []byte, rec Record) []byte {
	if f.json != nil {
		out, _ := f.json.append(dst, rec, f.omit)
		return append(out, '\n')
	}
	return f.appendText(dst, rec)
}

func (f *Format) appendText(dst []byte, rec Record) []byte {
	for i := range f.parts {
		p := &f.parts[i]
		if p.op == nil {
			dst = append(dst, p.literal...)
			continue
		}
		var ok bool
		if dst, ok = p.op.write(dst, rec); !ok {
			dst = append(dst, f.missing...)
		}
	}
	return dst
}

// Parse compiles a text with command operators. Its error names the operator that
// is unknown or wrongly used.
func Parse(text string) (*Format, error) { return parse(text, "-") }

// ParseHeader is Parse for the value of a header: what a record does not have is empty.
func ParseHeader(text string) (*Format, error) { return parse(text, "") }

// New compiles a SubstitutionFormatString.
func New(s *corev3.SubstitutionFormatString) (*Format, error) {
	for i, formatter := range s.GetFormatters() {
		if !builtIn[formatter.GetName()] {
			return nil, fmt.Errorf("formatters[%d] %q: not supported", i, formatter.GetName())
		}
	}
	switch f := s.GetFormat().(type) {
	case *corev3.SubstitutionFormatString_TextFormat:
		return newText("text_format", f.TextFormat, s.GetOmitEmptyValues())
	case *corev3.SubstitutionFormatString_TextFormatSource:
		text, ok := f.TextFormatSource.GetSpecifier().(*corev3.DataSource_InlineString)
		if !ok {
			return nil, errors.New("text_format_source: only inline_string is supported")
		}
		return newText("text_format_source", text.InlineString, s.GetOmitEmptyValues())
	case *corev3.SubstitutionFormatString_JsonFormat:
		// Keys are sorted always, also without json_format_options.sort_properties.
		out, err := ParseJSON(f.JsonFormat, s.GetOmitEmptyValues())
		if err != nil {
			return nil, fmt.Errorf("json_format: %w", err)
		}
		return out, nil
	}
	return nil, errors.New("format: not set")
}

// builtIn are formatter extensions whose operators are always known here.
var builtIn = map[string]bool{"envoy.formatter.req_without_query": true, "envoy.formatter.metadata": true}

func newText(field, text string, omit bool) (*Format, error) {
	missing := "-"
	if omit {
		missing = ""
	}
	f, err := parse(text, missing)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return f, nil
}
