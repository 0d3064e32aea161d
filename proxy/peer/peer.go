// Package peer tells which workload is at the other end of a connection or request, as
// the proxies of a mesh tell each other.
//
// What is told is a Struct with some fields of the node's metadata. It goes in the header
// x-envoy-peer-metadata (Encode, Decode), or in a frame at the start of a TCP connection
// (package metadataexchange). Control planes say the most important of it for endpoints
// too (FromEndpoint), for peers that say nothing themselves.
package peer

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// A Workload is what is known of a peer; what is not known is "". It is immutable.
type Workload struct {
	Name, Namespace   string // WORKLOAD_NAME, NAMESPACE
	Cluster           string // CLUSTER_ID
	Service, Revision string // canonical name and revision
	App, Version      string // labels app and version
	Instance          string // NAME
	ServiceAccount    string
	Labels            map[string]string
}

// Workload returns w: a Workload is Known.
func (w *Workload) Workload() *Workload { return w }

// Known is a peer that may become known later, at the first bytes that it sends.
type Known interface {
	// Workload is the peer, nil while it is not known.
	Workload() *Workload
}

// told are the fields of a node's metadata that peers are told.
var told = [...]string{
	"NAME", "NAMESPACE", "OWNER", "WORKLOAD_NAME", "CLUSTER_ID", "MESH_ID", "SERVICE_ACCOUNT", "INSTANCE_IPS", "APP_CONTAINERS", "ISTIO_VERSION",
}

const (
	canonicalName     = "service.istio.io/canonical-name"
	canonicalRevision = "service.istio.io/canonical-revision"
)

// Metadata is what a proxy tells of itself: those fields of its node that others may know.
func Metadata(node *structpb.Struct) *structpb.Struct {
	m := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for _, name := range told {
		if v := node.GetFields()[name]; v.GetStringValue() != "" {
			m.Fields[name] = v
		}
	}
	labels := maps.Clone(node.GetFields()["LABELS"].GetStructValue().GetFields())
	if labels == nil {
		labels = map[string]*structpb.Value{}
	}
	workload := node.GetFields()["WORKLOAD_NAME"].GetStringValue()
	fallBack(labels, canonicalName, labels["app"].GetStringValue(), workload)
	fallBack(labels, canonicalRevision, labels["version"].GetStringValue(), "latest")
	m.Fields["LABELS"] = structpb.NewStructValue(&structpb.Struct{Fields: labels})
	return m
}

// fallBack gives a label that is missing the first value that there is.
func fallBack(labels map[string]*structpb.Value, name string, values ...string) {
	if labels[name].GetStringValue() != "" {
		return
	}
	for _, v := range values {
		if v != "" {
			labels[name] = structpb.NewStringValue(v)
			return
		}
	}
}

// Encode writes a node's Metadata as the header has it: base64 of its protobuf. Equal
// metadata make equal bytes.
func Encode(node *structpb.Struct) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(Metadata(node))
	if err != nil { // strings that are no UTF-8, which the bootstrap's decoder refuses
		return nil
	}
	return base64.StdEncoding.AppendEncode(nil, b)
}

// maxTold bounds what a peer may say of itself, in bytes.
const maxTold = 64 << 10

// Decode reads a header's value.
func Decode(header []byte) (*Workload, error) {
	if len(header) > base64.StdEncoding.EncodedLen(maxTold) {
		return nil, fmt.Errorf("peer metadata: larger than %d bytes", maxTold)
	}
	b := make([]byte, base64.StdEncoding.DecodedLen(len(header)))
	n, err := base64.StdEncoding.Decode(b, header)
	if err != nil {
		return nil, fmt.Errorf("peer metadata: %w", err)
	}
	var m structpb.Struct
	if err := proto.Unmarshal(b[:n], &m); err != nil {
		return nil, fmt.Errorf("peer metadata: %w", err)
	}
	return FromMetadata(&m), nil
}

// FromMetadata reads the metadata of a node, its own or what a peer has told.
func FromMetadata(m *structpb.Struct) *Workload {
	text := func(name string) string { return m.GetFields()[name].GetStringValue() }
	w := &Workload{Name: text("WORKLOAD_NAME"), Namespace: text("NAMESPACE"), Cluster: text("CLUSTER_ID"), Instance: text("NAME"),
		ServiceAccount: text("SERVICE_ACCOUNT"), Labels: map[string]string{}}
	for name, v := range m.GetFields()["LABELS"].GetStructValue().GetFields() {
		w.Labels[name] = v.GetStringValue()
	}
	w.App, w.Version, w.Service, w.Revision = w.Labels["app"], w.Labels["version"], w.Labels[canonicalName], w.Labels[canonicalRevision]
	return w
}

// FromEndpoint reads what a control plane says of an endpoint, the text
// "workload;namespace;canonical name;canonical revision;cluster"; nil when it is not that.
func FromEndpoint(text string) *Workload {
	f := strings.Split(text, ";")
	if len(f) < 5 {
		return nil
	}
	return &Workload{Name: f[0], Namespace: f[1], Service: f[2], Revision: f[3], Cluster: f[4]}
}

// FromBaggage reads a W3C baggage header with the keys that meshes use in it.
func FromBaggage(header []byte) (*Workload, error) {
	if len(header) > maxTold {
		return nil, fmt.Errorf("baggage: larger than %d bytes", maxTold)
	}
	w, found := &Workload{}, false
	for member := range strings.SplitSeq(string(header), ",") {
		member, _, _ = strings.Cut(member, ";") // properties
		key, value, _ := strings.Cut(member, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("baggage: %w", err)
		}
		if field := w.baggage(strings.TrimSpace(key)); field != nil {
			*field, found = value, true
		}
	}
	if !found {
		return nil, errUnread
	}
	return w, nil
}

// baggage is the field that a key of the header stands for, nil for none.
func (w *Workload) baggage(key string) *string {
	switch key {
	case "k8s.cluster.name":
		return &w.Cluster
	case "k8s.namespace.name":
		return &w.Namespace
	case "k8s.deployment.name", "k8s.cronjob.name", "k8s.job.name", "k8s.pod.name":
		return &w.Name
	case "k8s.instance.name":
		return &w.Instance
	case "service.name":
		return &w.Service
	case "service.version":
		return &w.Revision
	case "app.name":
		return &w.App
	case "app.version":
		return &w.Version
	}
	return nil
}

// A Memory remembers the peers that were read: proxies say the same with every request.
// The zero value is ready. It is safe for concurrent use and bounded.
type Memory struct {
	mu    sync.RWMutex
	known map[string]*Workload
}

// maxKnown is how many peers are remembered. When there are more, all are forgotten.
const maxKnown = 2000

var errUnread = errors.New("peer metadata: not readable")

// Read is the Workload that read makes of a text. Reading what is remembered allocates
// nothing; what cannot be read is remembered too.
func (m *Memory) Read(text []byte, read func([]byte) (*Workload, error)) (*Workload, error) {
	m.mu.RLock()
	w, ok := m.known[string(text)]
	m.mu.RUnlock()
	if !ok {
		w, _ = read(text)
		m.mu.Lock()
		if m.known == nil || len(m.known) >= maxKnown {
			m.known = map[string]*Workload{}
		}
		m.known[string(text)] = w
		m.mu.Unlock()
	}
	if w == nil {
		return nil, errUnread
	}
	return w, nil
}

// Endpoint is FromEndpoint for a text that may have been read before; nil when it cannot
// be read.
func (m *Memory) Endpoint(text string) *Workload {
	m.mu.RLock()
	w, ok := m.known[text]
	m.mu.RUnlock()
	if ok {
		return w
	}
	w, _ = m.Read([]byte(text), func(b []byte) (*Workload, error) { return FromEndpoint(string(b)), nil })
	return w
}
