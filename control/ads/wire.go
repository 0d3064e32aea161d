package ads

import (
	"cmp"
	"io"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/mem"
)

var errEOF = io.EOF

// A request is a discovery request in either form.
type request struct {
	node    *corepb.Node
	typeURL string
	nonce   string
	nack    string // the error's text, "" for an ACK or a subscription

	// state of the world
	names   []string
	version string

	// delta
	subscribe, unsubscribe []string
	initial                map[string]string // name → version
}

// A wire is one of the protocol's two forms over one stream. recv and send may be
// used by one goroutine each.
type wire interface {
	recv() (*request, error)
	send(typeURL, nonce, version string, d delivery) error
}

// maxNACK bounds what is kept of an error's text; an Envoy may quote the resource.
const maxNACK = 16 << 10

// world is the state-of-the-world form.
type world struct {
	stream discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesServer
	by     *corepb.ControlPlane // said by the first response, nil from then on
}

func (w *world) recv() (*request, error) {
	m, err := w.stream.Recv()
	if err != nil {
		return nil, err
	}
	r := &request{node: m.GetNode(), typeURL: m.GetTypeUrl(), nonce: m.GetResponseNonce(), names: m.GetResourceNames(), version: m.GetVersionInfo()}
	if e := m.GetErrorDetail(); e != nil {
		r.nack = nackText(e.GetMessage())
	}
	return r, nil
}

func (w *world) send(typeURL, nonce, version string, d delivery) error {
	head := &discoverypb.DiscoveryResponse{TypeUrl: typeURL, Nonce: nonce, VersionInfo: version, ControlPlane: w.by}
	w.by = nil
	f, err := newFrame(head, d, func(r *Resource) mem.Buffer { return r.world })
	if err != nil {
		return err
	}
	return w.stream.SendMsg(f)
}

// delta is the incremental form.
type delta struct {
	stream discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	by     *corepb.ControlPlane // as in world
}

func (w *delta) recv() (*request, error) {
	m, err := w.stream.Recv()
	if err != nil {
		return nil, err
	}
	r := &request{
		node: m.GetNode(), typeURL: m.GetTypeUrl(), nonce: m.GetResponseNonce(),
		subscribe: m.GetResourceNamesSubscribe(), unsubscribe: m.GetResourceNamesUnsubscribe(),
		initial: m.GetInitialResourceVersions(),
	}
	if e := m.GetErrorDetail(); e != nil {
		r.nack = nackText(e.GetMessage())
	}
	return r, nil
}

func (w *delta) send(typeURL, nonce, version string, d delivery) error {
	head := &discoverypb.DeltaDiscoveryResponse{TypeUrl: typeURL, Nonce: nonce, SystemVersionInfo: version, RemovedResources: d.removed, ControlPlane: w.by}
	w.by = nil
	f, err := newFrame(head, d, func(r *Resource) mem.Buffer { return r.delta })
	if err != nil {
		return err
	}
	return w.stream.SendMsg(f)
}

// nackText is an error's text, bounded and never empty.
func nackText(s string) string {
	if len(s) > maxNACK {
		s = strings.ToValidUTF8(s[:maxNACK], "") + "…"
	}
	return cmp.Or(s, "refused without a message")
}
