// Package setmetadata is the HTTP filter envoy.filters.http.set_metadata: it gives each
// stream dynamic metadata that the configuration names, for routes, filters and access logs
// behind it.
//
// A namespace that the stream has already is left as it is and counted (overwrite_denied),
// unless allow_overwrite is set: then structures are merged, lists are appended to, and
// any other value takes the place of the one before.
package setmetadata

import (
	"fmt"
	"maps"
	"slices"

	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_metadata/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

// Name is the filter's canonical name.
const Name = "envoy.filters.http.set_metadata"

const typeURL = "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config"

// Factory builds the filter.
func Factory() http.Factory {
	return http.Factory{Name: Name, TypeURLs: []string{typeURL}, New: newFilter}
}

// entry is what one namespace gets.
type entry struct {
	namespace string
	value     map[string]any // shared by all streams: never changed
	overwrite bool
}

type filter struct {
	entries []entry
	denied  *stats.Counter
}

func newFilter(cfg *anypb.Any, env http.Env) (http.Filter, error) {
	var c metadatav3.Config
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	if err := c.ValidateAll(); err != nil {
		return nil, err
	}
	f := &filter{denied: env.Stats.Counter("set_metadata.overwrite_denied")}
	if c.GetValue() != nil { // the older form
		f.entries = append(f.entries, entry{c.GetMetadataNamespace(), c.GetValue().AsMap(), true})
	}
	for i, m := range c.GetMetadata() {
		if m.GetTypedValue() != nil {
			return nil, fmt.Errorf("metadata[%d].typed_value: not supported", i)
		}
		if m.GetValue() != nil {
			f.entries = append(f.entries, entry{m.GetMetadataNamespace(), m.GetValue().AsMap(), m.GetAllowOverwrite()})
		}
	}
	return f, nil
}

// OnRequest gives the stream its metadata.
func (f *filter) OnRequest(s *http.Stream, _ http.Slot) http.Verdict {
	all := s.Info.Metadata
	if all == nil {
		all = make(map[string]map[string]any, len(f.entries))
		s.Info.Metadata = all
	}
	for i := range f.entries {
		e := &f.entries[i]
		before, has := all[e.namespace]
		switch {
		case !has:
			all[e.namespace] = e.value
		case e.overwrite:
			all[e.namespace] = merged(before, e.value)
		default:
			f.denied.Inc()
		}
	}
	return http.Continue
}

// merged is before with what more says. Neither is changed.
func merged(before, more map[string]any) map[string]any {
	out := maps.Clone(before)
	if out == nil {
		out = make(map[string]any, len(more))
	}
	for key, v := range more {
		out[key] = together(out[key], v)
	}
	return out
}

// together is what a key has that had before and gets v.
func together(before, v any) any {
	switch v := v.(type) {
	case map[string]any:
		if was, ok := before.(map[string]any); ok {
			return merged(was, v)
		}
	case []any:
		if was, ok := before.([]any); ok {
			return slices.Concat(was, v)
		}
	}
	return v
}

// OnResponse does nothing.
func (f *filter) OnResponse(*http.Stream, http.Slot) http.Verdict { return http.Continue }
