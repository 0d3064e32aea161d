package match

import (
	"bytes"
	"errors"
	"fmt"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// A Query is a compiled QueryParameterMatcher. It reads the first value of its
// parameter as it was sent, without decoding.
type Query struct {
	name     string
	text     String
	presence bool // decide by presence alone, which must be present
	present  bool
}

// NewQuery compiles a QueryParameterMatcher. Without a specifier it wants presence.
func NewQuery(m *routev3.QueryParameterMatcher) (Query, error) {
	if m.GetName() == "" {
		return Query{}, errors.New("name: must not be empty")
	}
	q := Query{name: m.GetName(), presence: true, present: true}
	switch s := m.GetQueryParameterMatchSpecifier().(type) {
	case *routev3.QueryParameterMatcher_PresentMatch:
		q.present = s.PresentMatch
	case *routev3.QueryParameterMatcher_StringMatch:
		text, err := NewString(s.StringMatch)
		if err != nil {
			return Query{}, fmt.Errorf("%s: string_match: %w", q.name, err)
		}
		q.presence, q.text = false, text
	}
	return q, nil
}

// Match decides by the query string, which is what follows the first question mark
// of the request's path.
func (q *Query) Match(query []byte) bool {
	value, ok := Parameter(query, q.name)
	if q.presence {
		return ok == q.present
	}
	return ok && q.text.Match(value)
}

// String says what q wants: `query parameter x exact "1"`.
func (q *Query) String() string {
	switch {
	case !q.presence:
		return "query parameter " + q.name + " " + q.text.String()
	case q.present:
		return "query parameter " + q.name + " present"
	}
	return "query parameter " + q.name + " absent"
}

// Parameter returns the first value of a parameter in a query string, as it was sent.
func Parameter(query []byte, name string) (value []byte, ok bool) {
	for len(query) > 0 {
		param := query
		if i := bytes.IndexByte(query, '&'); i >= 0 {
			param, query = query[:i], query[i+1:]
		} else {
			query = nil
		}
		key, value := param, param[len(param):]
		if i := bytes.IndexByte(param, '='); i >= 0 {
			key, value = param[:i], param[i+1:]
		}
		if string(key) == name {
			return value, true
		}
	}
	return nil, false
}

// SplitPath divides the target of a request into path and query, which comes
// without its question mark and is nil when there is none.
func SplitPath(target []byte) (path, query []byte) {
	if i := bytes.IndexByte(target, '?'); i >= 0 { //nolint:modernize // runs for every request; a byte is found faster than a string
		return target[:i], target[i+1:]
	}
	return target, nil
}
