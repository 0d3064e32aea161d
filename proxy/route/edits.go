package route

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
)

// A HeaderValue is the value of a header edit: a literal, or a text with command
// operators such as %DOWNSTREAM_REMOTE_ADDRESS%.
type HeaderValue struct {
	literal []byte
	format  *format.Format // nil: literal
}

// bytes is the value for s, which lives as long as the stream, or by itself where s is nil.
func (v HeaderValue) bytes(s *http.Stream, rec format.Record) []byte {
	if v.format == nil {
		return v.literal // belongs to the table, which the stream holds
	}
	if s == nil {
		return v.format.Append(nil, rec)
	}
	return s.Keep(v.format.Append(s.Scratch(), rec))
}

// apply removes, then sets, then adds. All values are made before the first is put
// in place, so that none sees another edit of its list. A value that cannot stand in a
// head (a decoded query parameter may hold a line end) is left out, and the name of its
// header returned.
func apply(h *http.Headers, remove [][]byte, add []HeaderEdit, s *http.Stream) (invalid []byte) {
	for _, name := range remove {
		h.Remove(text(name))
	}
	if len(add) == 0 {
		return nil
	}
	var few [8][]byte
	values := few[:0]
	for i := range add {
		v := add[i].valueOf(h, s, format.Of(s))
		if add[i].Value.format != nil && !sendable(v) {
			invalid, v = add[i].Name, nil
		}
		values = append(values, v)
	}
	for i := range add {
		if add[i].overwrites() && values[i] != nil {
			add[i].set(h, values[i])
		}
	}
	for i := range add {
		if !add[i].overwrites() && values[i] != nil {
			add[i].addTo(h, values[i])
		}
	}
	return invalid
}

// sendable reports that a header value has no control characters but tabs.
func sendable(v []byte) bool {
	for _, c := range v {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// valueOf is the value to put in place, nil for none.
func (e *HeaderEdit) valueOf(h *http.Headers, s *http.Stream, rec format.Record) []byte {
	switch e.Append {
	case AddIfAbsent:
		if h.Has(text(e.Name)) {
			return nil
		}
	case OverwriteIfExists:
		if !h.Has(text(e.Name)) {
			return nil
		}
	}
	v := e.Value.bytes(s, rec)
	if len(v) > 0 {
		return v
	}
	if e.KeepEmpty {
		return []byte{}
	}
	return nil
}

func (e *HeaderEdit) overwrites() bool {
	return e.Append == OverwriteIfExistsOrAdd || e.Append == OverwriteIfExists
}

// set puts a value in the place of all others: behind all headers, but for one that is kept
// as one field.
func (e *HeaderEdit) set(h *http.Headers, value []byte) {
	if e.inline {
		h.Set(text(e.Name), value)
		return
	}
	h.Remove(text(e.Name))
	h.Add(e.Name, value)
}

func (e *HeaderEdit) addTo(h *http.Headers, value []byte) {
	if e.inline {
		if before, ok := h.First(text(e.Name)); ok {
			h.Set(text(e.Name), slices.Concat(before, []byte(","), value))
			return
		}
	}
	h.Add(e.Name, value)
}

// text is a header name of the table, which never changes, as a string without a copy.
func text(name []byte) string { return unsafe.String(unsafe.SliceData(name), len(name)) } //nolint:gosec // see above

// EditRequest applies the request header edits of all levels in Envoy's order: those of the
// weighted cluster (nil for none), then from the route up to the table, or the other way
// round with most_specific_header_mutations_wins. A request for which it returns the name of a
// header must not be sent: the value would break its head.
func (d Decision) EditRequest(s *http.Stream, w *WeightedCluster) (invalid []byte) {
	for _, e := range d.edits(w) {
		if e == nil {
			continue
		}
		if name := apply(&s.Request.Headers, e.RequestRemove, e.RequestAdd, s); name != nil {
			invalid = name
		}
	}
	return invalid
}

// EditResponse is EditRequest for the response head, where such a value is left out.
func (d Decision) EditResponse(s *http.Stream, w *WeightedCluster) {
	for _, e := range d.edits(w) {
		if e != nil {
			apply(&s.Response.Headers, e.ResponseRemove, e.ResponseAdd, s)
		}
	}
}

func (d Decision) edits(w *WeightedCluster) (order [4]*Edits) {
	if w != nil {
		order[0] = &w.Edits
	}
	if d.Route != nil {
		order[1] = &d.Route.Edits
	}
	if d.VirtualHost != nil {
		order[2] = &d.VirtualHost.Edits
	}
	if d.Table != nil {
		order[3] = &d.Table.Edits
		if d.Table.SpecificWins {
			slices.Reverse(order[1:])
		}
	}
	return order
}

// headerEdits are the four fields that every level has.
type headerEdits interface {
	GetRequestHeadersToAdd() []*corev3.HeaderValueOption
	GetRequestHeadersToRemove() []string
	GetResponseHeadersToAdd() []*corev3.HeaderValueOption
	GetResponseHeadersToRemove() []string
}

func newEdits(from headerEdits) (e Edits, err error) {
	if e.RequestRemove, err = newRemovals("request_headers_to_remove", from.GetRequestHeadersToRemove()); err != nil {
		return e, err
	}
	if e.ResponseRemove, err = newRemovals("response_headers_to_remove", from.GetResponseHeadersToRemove()); err != nil {
		return e, err
	}
	if e.RequestAdd, err = newAdditions("request_headers_to_add", from.GetRequestHeadersToAdd()); err != nil {
		return e, err
	}
	e.ResponseAdd, err = newAdditions("response_headers_to_add", from.GetResponseHeadersToAdd())
	return e, err
}

func newRemovals(field string, names []string) ([][]byte, error) {
	var out [][]byte
	for i, name := range names {
		if err := editable(name); err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", field, i, err)
		}
		out = append(out, []byte(strings.ToLower(name)))
	}
	return out, nil
}

func newAdditions(field string, options []*corev3.HeaderValueOption) ([]HeaderEdit, error) {
	var out []HeaderEdit
	for i, o := range options {
		e, err := newEdit(o)
		if err != nil {
			return nil, fmt.Errorf("%s[%d] %q: %w", field, i, o.GetHeader().GetKey(), err)
		}
		out = append(out, e)
	}
	return out, nil
}

// editable refuses what Envoy refuses: the target of a request is changed by rewrites.
func editable(name string) error {
	switch {
	case name == "":
		return errors.New("name: must not be empty")
	case name[0] == ':' || strings.EqualFold(name, "host"):
		return errors.New("pseudo headers and host may not be edited")
	case strings.ContainsAny(name, "\x00\r\n"):
		return errors.New("name: has a control character")
	}
	return nil
}

var appendActions = map[corev3.HeaderValueOption_HeaderAppendAction]AppendAction{
	corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD: AppendIfExistsOrAdd, corev3.HeaderValueOption_ADD_IF_ABSENT: AddIfAbsent,
	corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD: OverwriteIfExistsOrAdd, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS: OverwriteIfExists,
}

func newEdit(o *corev3.HeaderValueOption) (HeaderEdit, error) {
	name := strings.ToLower(o.GetHeader().GetKey())
	e := HeaderEdit{Name: []byte(name), KeepEmpty: o.GetKeepEmptyValue(), Append: appendActions[o.GetAppendAction()], inline: http.Inline(name)}
	if err := editable(name); err != nil {
		return e, err
	}
	if old := o.GetAppend(); old != nil {
		if o.GetAppendAction() != corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD {
			return e, errors.New("append and append_action: only one may be set")
		}
		if !old.GetValue() {
			e.Append = OverwriteIfExistsOrAdd
		}
	}
	v, err := newHeaderValue(o.GetHeader().GetValue()) // raw_value is of other uses of the message
	e.Value = v
	return e, err
}

func newHeaderValue(value string) (HeaderValue, error) {
	if strings.ContainsAny(value, "\x00\r\n") {
		return HeaderValue{}, errors.New("value: has a control character")
	}
	if !strings.Contains(value, "%") {
		return HeaderValue{literal: []byte(value)}, nil
	}
	f, err := format.ParseHeader(value)
	if err != nil {
		return HeaderValue{}, fmt.Errorf("value: %w", err)
	}
	return HeaderValue{format: f}, nil
}
