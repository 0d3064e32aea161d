package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strings"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// configDump prints the configuration in force. Each part is an object; with resource
// the elements of that list of any part are printed instead, with mask only the named
// fields, with name_regex only elements of that name.
func configDump(s *Server, w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	d := dump{resource: q.Get("resource")}
	if text := q.Get("name_regex"); text != "" {
		_, bad := compileRegexp(text)
		if d.name, _ = regexp.Compile("^(?:" + text + ")$"); bad != "" {
			refuse(w, http.StatusBadRequest, "INVALID_ARGUMENT: Error while parsing name_regex from "+text+strings.TrimPrefix(bad, "Invalid re2 regex"))
			return
		}
	}
	if m := q.Get("mask"); m != "" {
		d.mask = strings.Split(m, ",")
	}
	for _, p := range s.view.Dump(q.Has("include_eds")) {
		if err := d.add(p); err != nil {
			refuse(w, http.StatusBadRequest, err.Error())
			return
		}
	}
	switch {
	case d.resource != "" && !d.found:
		refuse(w, http.StatusNotFound, d.resource+" not found in config dump")
		return
	case d.mask != nil && !d.applied:
		refuse(w, http.StatusBadRequest, "FieldMask "+q.Get("mask")+" could not be successfully applied to any configs.")
		return
	}
	if len(d.out) == 0 {
		writeJSON(w, struct{}{})
		return
	}
	b, err := json.Marshal(map[string]any{"configs": append([]json.RawMessage{}, d.out...)})
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error()+"\n")
		return
	}
	w.Header().Set("content-type", "application/json")
	s.send(indent(w, b))
}

// refuse is fail without a charset, as Envoy answers here.
func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("content-type", "text/plain")
	w.WriteHeader(status)
	write(w, text)
}

// dump gathers what was asked for.
type dump struct {
	resource string
	mask     []string
	name     *regexp.Regexp
	found    bool
	applied  bool // some field of the mask is there
	out      []json.RawMessage
}

// elementTypes are the message names of the lists' elements.
var elementTypes = map[string]string{
	"static_listeners": "StaticListener", "dynamic_listeners": "DynamicListener",
	"static_clusters": "StaticCluster", "dynamic_active_clusters": "DynamicCluster", "dynamic_warming_clusters": "DynamicCluster",
	"static_route_configs": "StaticRouteConfig", "dynamic_route_configs": "DynamicRouteConfig",
	"inline_scoped_route_configs": "InlineScopedRouteConfigs",
	"static_secrets":              "StaticSecret", "dynamic_active_secrets": "DynamicSecret", "dynamic_warming_secrets": "DynamicSecret",
	"static_endpoint_configs": "StaticEndpointConfig", "dynamic_endpoint_configs": "DynamicEndpointConfig",
}

func (d *dump) add(p proto.Message) error {
	b, err := encode(p, false)
	if err != nil {
		return err
	}
	fields, err := members(b)
	if err != nil {
		return err
	}
	url := "type.googleapis.com/" + string(p.ProtoReflect().Descriptor().FullName())
	if d.resource != "" {
		d.found = d.found || p.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(d.resource)) != nil
		return d.addElements(url, fields)
	}
	if _, is := p.(*adminpb.BootstrapConfigDump); d.name != nil && !is {
		if fields, err = d.filterLists(fields); err != nil {
			return err
		}
	}
	if d.mask != nil {
		if fields, err = d.keep(fields, d.mask); err != nil || len(fields) == 0 {
			return err
		}
	}
	return d.emit(url, fields)
}

// addElements emits the elements of the list that was asked for.
func (d *dump) addElements(url string, fields []member) error {
	for _, f := range fields {
		if f.name != d.resource {
			continue
		}
		var list []json.RawMessage
		if json.Unmarshal(f.value, &list) != nil {
			return errors.New(f.name + " is not a repeated field. Use ?mask=" + f.name + " to get only this field")
		}
		for _, e := range list {
			m, err := members(e)
			if err != nil {
				return err
			}
			if !d.named(e) {
				continue
			}
			if d.mask != nil {
				if m, err = d.keep(m, d.mask); err != nil {
					return err
				}
			}
			element := url
			if t := elementTypes[f.name]; t != "" {
				element += "." + t
			}
			if err := d.emit(element, m); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *dump) filterLists(fields []member) ([]member, error) {
	out := make([]member, 0, len(fields))
	for _, f := range fields {
		var list []json.RawMessage
		if elementTypes[f.name] == "" || json.Unmarshal(f.value, &list) != nil {
			continue
		}
		kept := []json.RawMessage{}
		for _, e := range list {
			if d.named(e) {
				kept = append(kept, e)
			}
		}
		if len(kept) == 0 {
			continue
		}
		b, err := json.Marshal(kept)
		if err != nil {
			return nil, err
		}
		out = append(out, member{f.name, b})
	}
	return out, nil
}

// named reports whether an element, or the resource within, has a name that matches.
func (d *dump) named(e json.RawMessage) bool {
	if d.name == nil {
		return true
	}
	var v map[string]any
	if json.Unmarshal(e, &v) != nil {
		return false
	}
	for _, inner := range append([]any{v}, values(v)...) {
		m, is := inner.(map[string]any)
		if !is {
			continue
		}
		for _, key := range []string{"name", "cluster_name"} {
			if n, is := m[key].(string); is && d.name.MatchString(n) {
				return true
			}
		}
	}
	return false
}

func values(m map[string]any) []any {
	var list []any
	for _, k := range sortedKeys(m) {
		list = append(list, m[k])
	}
	return list
}

// keep returns the fields that the paths name.
func (d *dump) keep(fields []member, paths []string) ([]member, error) {
	var out []member
	for _, f := range fields {
		var below []string
		whole := f.name == "@type"
		for _, p := range paths {
			head, rest, deeper := strings.Cut(strings.TrimSpace(p), ".")
			if head != f.name {
				continue
			}
			whole = whole || !deeper
			below = append(below, rest)
		}
		switch {
		case whole:
			out = append(out, f)
		case below != nil:
			v, err := d.keepBelow(f.value, below)
			if err != nil {
				return nil, err
			}
			out = append(out, member{f.name, v})
		}
	}
	if len(out) == 1 && out[0].name == "@type" {
		return nil, nil
	}
	d.applied = d.applied || len(out) > 0
	return out, nil
}

func (d *dump) keepBelow(value json.RawMessage, paths []string) (json.RawMessage, error) {
	var list []json.RawMessage
	if json.Unmarshal(value, &list) == nil {
		for i, e := range list {
			v, err := d.keepBelow(e, paths)
			if err != nil {
				return nil, err
			}
			list[i] = v
		}
		return json.Marshal(list)
	}
	m, err := members(value)
	if err != nil { // a scalar has nothing below
		return value, nil
	}
	m, err = d.keep(m, paths)
	if err != nil {
		return nil, err
	}
	return object(m), nil
}

func (d *dump) emit(url string, fields []member) error {
	typ, err := json.Marshal(url)
	if err != nil {
		return err
	}
	d.out = append(d.out, object(append([]member{{"@type", typ}}, fields...)))
	return nil
}

// member is one field of an object, whose order is that of the schema.
type member struct {
	name  string
	value json.RawMessage
}

// members takes an object apart without losing its order.
func members(b []byte) ([]member, error) {
	dec := json.NewDecoder(strings.NewReader(string(b)))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errNotObject
	}
	var out []member
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, _ := t.(string) // keys are strings
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		out = append(out, member{name, v})
	}
	return out, nil
}

func object(fields []member) json.RawMessage {
	var b strings.Builder
	b.WriteByte('{')
	for i, f := range fields {
		if i > 0 {
			b.WriteByte(',')
		}
		name, _ := json.Marshal(f.name) // a string
		b.Write(name)
		b.WriteByte(':')
		b.Write(f.value)
	}
	b.WriteByte('}')
	return json.RawMessage(b.String())
}
