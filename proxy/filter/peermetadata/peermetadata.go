// Package peermetadata is the HTTP filter that mesh control planes configure as
// io.istio.http.peer_metadata.Config, in a TypedStruct: proxies tell each other by
// headers which workload they serve.
//
// This proxy takes the headers of a peer off where the configuration says that they
// are read there, so that applications and clients do not see them. It does not use
// what they say yet, nor send its own; README.md has the list.
package peermetadata

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// TypeURL is the type of the configuration within its TypedStruct.
const TypeURL = "type.googleapis.com/io.istio.http.peer_metadata.Config"

const (
	idHeader       = "x-envoy-peer-metadata-id"
	metadataHeader = "x-envoy-peer-metadata"
)

// Factory builds the filter.
func Factory() http.Factory {
	return http.Factory{Name: "envoy.filters.http.peer_metadata", TypeURLs: []string{TypeURL}, New: newFilter}
}

// methods are the ways of discovery and propagation that the original has.
var methods = []string{"baggage", "istio_headers", "upstream_filter_state", "workload_discovery"}

func newFilter(cfg *anypb.Any, _ http.Env) (http.Filter, error) {
	value, err := unpack(cfg)
	if err != nil {
		return nil, err
	}
	f := &filter{}
	for _, field := range slices.Sorted(maps.Keys(value.GetFields())) {
		v := value.GetFields()[field]
		switch field {
		case "downstream_discovery":
			f.strip, err = readsHeaders(v)
		case "upstream_discovery":
			f.stripResponse, err = readsHeaders(v)
		case "downstream_propagation", "upstream_propagation":
			_, err = readsHeaders(v)
		case "shared_with_upstream", "additional_labels":
		default:
			err = errors.New("not supported")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
	}
	return f, nil
}

func unpack(cfg *anypb.Any) (*structpb.Struct, error) {
	var current xdsv3.TypedStruct
	if cfg.MessageIs(&current) {
		err := cfg.UnmarshalTo(&current)
		return current.GetValue(), err
	}
	var old udpav1.TypedStruct
	err := cfg.UnmarshalTo(&old)
	return old.GetValue(), err
}

// readsHeaders checks a list of methods and reports whether the headers are among them.
func readsHeaders(list *structpb.Value) (bool, error) {
	found := false
	for i, m := range list.GetListValue().GetValues() {
		for name := range m.GetStructValue().GetFields() {
			if !slices.Contains(methods, name) {
				return false, fmt.Errorf("[%d].%s: not supported", i, name)
			}
			found = found || name == "istio_headers"
		}
	}
	return found, nil
}

type filter struct{ strip, stripResponse bool }

// OnRequest takes off the headers of the peer downstream.
func (f *filter) OnRequest(s *http.Stream, _ http.Slot) http.Verdict {
	if f.strip {
		s.Request.Headers.Remove(idHeader)
		s.Request.Headers.Remove(metadataHeader)
	}
	return http.Continue
}

// OnResponse takes off the headers of the peer upstream.
func (f *filter) OnResponse(s *http.Stream, _ http.Slot) http.Verdict {
	if f.stripResponse {
		s.Response.Headers.Remove(idHeader)
		s.Response.Headers.Remove(metadataHeader)
	}
	return http.Continue
}
