// Package peermetadata is the HTTP filter that mesh control planes configure as
// io.istio.http.peer_metadata.Config, in a TypedStruct: proxies tell each other by
// headers which workload they serve.
//
//	x-envoy-peer-metadata-id   the node's id
//	x-envoy-peer-metadata      what others may know of the workload, as base64 of a protobuf Struct
//
// Where the configuration says that they are read (discovery), the headers of the peer
// are taken off, so that applications and clients do not see them. Where it says that they
// are sent (propagation), ours are set: on requests always, on responses if the peer has
// sent its own. README.md has the fields.
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
	"github.com/lateen-mesh/lateen/proxy/peer"
)

// TypeURL is the type of the configuration within its TypedStruct.
const TypeURL = "type.googleapis.com/io.istio.http.peer_metadata.Config"

const (
	idHeader       = "x-envoy-peer-metadata-id"
	metadataHeader = "x-envoy-peer-metadata"
)

// Deps are what the filter uses of the proxy around it.
type Deps struct {
	// ID and Metadata are those of the proxy's node.
	ID       string
	Metadata *structpb.Struct
	// External reports that a cluster is outside of the mesh; nil: none is.
	External func(cluster string) bool
}

// Factory builds the filter.
func Factory(d Deps) http.Factory {
	own := &identity{id: []byte(d.ID), metadata: peer.Encode(d.Metadata), external: d.External}
	return http.Factory{Name: "envoy.filters.http.peer_metadata", TypeURLs: []string{TypeURL}, New: func(cfg *anypb.Any, _ http.Env) (http.Filter, error) {
		return newFilter(cfg, own)
	}}
}

// identity is what this proxy tells of itself, and what others have told it.
type identity struct {
	id, metadata []byte
	external     func(cluster string) bool
	peers        peer.Memory
}

// methods are the ways of discovery and propagation that the original has.
var methods = []string{"baggage", "istio_headers", "upstream_filter_state", "workload_discovery"}

func newFilter(cfg *anypb.Any, own *identity) (http.Filter, error) {
	value, err := unpack(cfg)
	if err != nil {
		return nil, err
	}
	f := &filter{own: own}
	for _, field := range slices.Sorted(maps.Keys(value.GetFields())) {
		v := value.GetFields()[field]
		switch field {
		case "downstream_discovery":
			f.readRequest, _, err = byHeaders(v)
			f.baggage = has(v, "baggage")
		case "upstream_discovery":
			f.readResponse, _, err = byHeaders(v)
		case "downstream_propagation":
			f.writeResponse, f.meshResponse, err = byHeaders(v)
		case "upstream_propagation":
			f.writeRequest, f.meshRequest, err = byHeaders(v)
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

// byHeaders checks a list of methods and reports whether the headers are among them, and
// whether only for clusters of the mesh.
func byHeaders(list *structpb.Value) (found, mesh bool, err error) {
	for i, m := range list.GetListValue().GetValues() {
		for name, v := range m.GetStructValue().GetFields() {
			if !slices.Contains(methods, name) {
				return false, false, fmt.Errorf("[%d].%s: not supported", i, name)
			}
			if name == "istio_headers" {
				found, mesh = true, v.GetStructValue().GetFields()["skip_external_clusters"].GetBoolValue()
			}
		}
	}
	return found, mesh, nil
}

// has reports that a method is in the list.
func has(list *structpb.Value, method string) bool {
	return slices.ContainsFunc(list.GetListValue().GetValues(), func(m *structpb.Value) bool {
		return m.GetStructValue().GetFields()[method] != nil
	})
}

type filter struct {
	own                         *identity
	baggage                     bool // the peer downstream may tell of itself in the header of that name
	readRequest, readResponse   bool
	writeRequest, writeResponse bool
	meshRequest, meshResponse   bool // not for clusters that are external
}

// What the peer downstream has sent, in the stream's slot.
const (
	sentID uint8 = 1 << iota
	sentMetadata
)

// OnRequest takes off the headers of the peer downstream and sets our own.
func (f *filter) OnRequest(s *http.Stream, slot http.Slot) http.Verdict {
	h := &s.Request.Headers
	if f.readRequest {
		sent := uint8(0)
		if h.Has(idHeader) {
			sent |= sentID
			h.Remove(idHeader)
		}
		if told := h.Get(metadataHeader); told != nil {
			sent |= sentMetadata
			if w, err := f.own.peers.Read(told, peer.Decode); err == nil {
				s.Info.DownstreamPeer = w
			}
			h.Remove(metadataHeader)
		}
		s.SetState(slot, sent)
	}
	if f.baggage && s.Info.DownstreamPeer == nil {
		if told := h.Get("baggage"); told != nil {
			if w, err := f.own.peers.Read(told, peer.FromBaggage); err == nil {
				s.Info.DownstreamPeer = w
			}
		}
	}
	if f.writeRequest && !(f.meshRequest && f.outside(s)) {
		f.own.write(h, sentID|sentMetadata)
	}
	return http.Continue
}

// OnResponse takes off the headers of the peer upstream and sets our own for a peer
// downstream.
func (f *filter) OnResponse(s *http.Stream, slot http.Slot) http.Verdict {
	h := &s.Response.Headers
	if f.readResponse {
		if told := h.Get(metadataHeader); told != nil {
			if w, err := f.own.peers.Read(told, peer.Decode); err == nil {
				s.Info.UpstreamPeer = w
			}
		}
		h.Remove(idHeader)
		h.Remove(metadataHeader)
	}
	if sent, ok := s.State(slot).(uint8); ok && f.writeResponse && !(f.meshResponse && f.outside(s)) {
		f.own.write(h, sent)
	}
	return http.Continue
}

// outside reports that the request goes to a cluster that is not the mesh's.
func (f *filter) outside(s *http.Stream) bool {
	return s.Info.Cluster != "" && f.own.external != nil && f.own.external(s.Info.Cluster)
}

var idName, metadataName = []byte(idHeader), []byte(metadataHeader)

// write sets those of our headers that what says, as the last ones.
func (own *identity) write(h *http.Headers, what uint8) {
	if what&sentID != 0 {
		h.Remove(idHeader)
		h.Add(idName, own.id)
	}
	if what&sentMetadata != 0 {
		h.Remove(metadataHeader)
		h.Add(metadataName, own.metadata)
	}
}
