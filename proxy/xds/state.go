package xds

import (
	"bytes"
	"errors"
	"slices"
	"sort"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/wellknown"
)

// wireOrder is the order in which requests of different types go out when several
// are due: dependencies first.
var wireOrder = [...]string{
	wellknown.ClusterType, wellknown.EndpointType, wellknown.ListenerType, wellknown.RouteType, wellknown.VirtualHostType, wellknown.SecretType,
}

func rank(url string) int {
	for i, u := range wireOrder {
		if u == url {
			return i
		}
	}
	return len(wireOrder)
}

// typeState is the conversation about one type.
type typeState struct {
	url     string
	all     *wildcard            // nil: by name only
	named   map[string]*resource // what is subscribed to by name
	spaces  []*space             // and by prefix
	version string               // state of the world: last accepted version_info
	nonce   string               // last received on this stream
	offered string               // version_info that came with it

	dirty   bool // the subscription has changed since the last request
	opened  bool // a request was sent on this stream
	acks    []ack
	added   map[string]bool // delta: names not yet asked for on this stream
	removed map[string]bool // delta: names not yet given up

	lastError   string
	lastErrorAt time.Time
}

type ack struct {
	nonce string
	err   error
}

type wildcard struct {
	timer  *time.Timer // initial_fetch_timeout, nil when done
	known  map[string]*resource
	decode func(name string, body *anypb.Any) (any, error)
	update func(updated []decoded, removed []string) error

	settled func() <-chan struct{} // nil: at once
	hold    <-chan struct{}        // what ACKs wait for, nil: nothing

	again *time.Timer   // decodes once more what time may cure, nil while there is nothing
	wait  time.Duration // until again
}

// A resource is what we have of one name.
type resource struct {
	name    string
	subs    []*subscription
	state   state
	version string
	body    *anypb.Any // last accepted, nil before
	updated time.Time

	failed        *anypb.Any // last refused, nil when the last one was accepted
	failedVersion string
	failure       string
	failedAt      time.Time
	curable       bool // the refusal was one of Again

	ttl *time.Timer // when it ends by itself, nil for never
}

func (r *resource) same(body *anypb.Any) bool {
	return r.body != nil && r.failed == nil && r.body.GetTypeUrl() == body.GetTypeUrl() && bytes.Equal(r.body.GetValue(), body.GetValue())
}

func (r *resource) accept(version string, body *anypb.Any) {
	r.state, r.version, r.body, r.updated = stateAcked, version, body, time.Now()
	r.failed, r.failure, r.failedVersion, r.failedAt, r.curable = nil, "", "", time.Time{}, false
}

func (r *resource) refuse(version string, body *anypb.Any, err error) {
	r.state, r.failed, r.failedVersion, r.failure, r.failedAt = stateNacked, body, version, err.Error(), time.Now()
	_, r.curable = errors.AsType[*curable](err)
}

type state uint8

const (
	stateRequested state = iota
	stateAbsent
	stateAcked
	stateNacked
)

func newTypeState(url string) *typeState {
	return &typeState{url: url, named: map[string]*resource{}, added: map[string]bool{}, removed: map[string]bool{}}
}

func (t *typeState) subscribe(name string) {
	t.dirty = true
	t.added[name] = true
	delete(t.removed, name)
}

func (t *typeState) unsubscribe(name string) {
	if t.added[name] { // never asked for: nothing to give up
		delete(t.added, name)
	} else {
		t.removed[name] = true
	}
	t.dirty = t.opened || len(t.named) > 0 || t.all != nil || len(t.spaces) > 0
}

// restart prepares for a new stream: nonces are void, everything is asked for again.
func (t *typeState) restart() {
	t.nonce, t.opened, t.acks = "", false, nil
	clear(t.removed)
	if t.all != nil {
		t.all.hold = nil
	}
	for name := range t.named {
		t.added[name] = true
	}
	for _, s := range t.spaces {
		t.added[s.prefix] = true
		for name := range s.asked {
			t.added[name] = true
		}
	}
	t.dirty = t.all != nil || len(t.named) > 0 || len(t.spaces) > 0
}

// waits reports that the ACKs are kept back. A NACK is not, nor what it stands behind.
func (t *typeState) waits() bool {
	return t.all != nil && t.all.hold != nil && !slices.ContainsFunc(t.acks, func(a ack) bool { return a.err != nil })
}

// request is the message that is due, nil when there is nothing to say.
func (t *typeState) request(delta bool, node *corev3.Node) proto.Message {
	if !t.opened && t.all == nil && len(t.named) == 0 && len(t.spaces) == 0 {
		return nil
	}
	if delta {
		return t.deltaRequest(node)
	}
	return t.worldRequest(node)
}

func (t *typeState) worldRequest(node *corev3.Node) proto.Message {
	r := &discoveryv3.DiscoveryRequest{Node: node, TypeUrl: t.url, VersionInfo: t.version, ResponseNonce: t.nonce}
	for name := range t.named {
		r.ResourceNames = append(r.ResourceNames, name)
	}
	sort.Strings(r.ResourceNames)
	if len(t.acks) > 0 {
		r.ErrorDetail = detail(t.acks[len(t.acks)-1].err)
	}
	return r
}

func (t *typeState) deltaRequest(node *corev3.Node) proto.Message {
	r := &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: t.url}
	if len(t.acks) > 0 {
		r.ResponseNonce, r.ErrorDetail = t.acks[0].nonce, detail(t.acks[0].err)
	}
	r.ResourceNamesSubscribe, r.ResourceNamesUnsubscribe = names(t.added), names(t.removed)
	if !t.opened {
		r.InitialResourceVersions = t.versions()
		if t.all != nil && len(t.named) > 0 {
			r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, "*")
		}
	}
	return r
}

// versions are those of everything that is in force.
func (t *typeState) versions() map[string]string {
	v := map[string]string{}
	note := func(m map[string]*resource) {
		for name, r := range m {
			if r.body != nil {
				v[name] = r.version
			}
		}
	}
	note(t.named)
	for _, s := range t.spaces {
		note(s.known)
	}
	if t.all != nil {
		note(t.all.known)
	}
	return v
}

func names(set map[string]bool) []string {
	var list []string
	for name := range set {
		list = append(list, name)
	}
	sort.Strings(list)
	return list
}

// sent notes that the due request went out, and tells whether it was more than an ACK.
func (t *typeState) sent(delta bool) (subscription bool) {
	subscription = t.dirty
	t.dirty, t.opened = false, true
	clear(t.added)
	clear(t.removed)
	if !delta {
		t.acks = nil
	} else if len(t.acks) > 0 {
		t.acks = t.acks[1:]
	}
	return subscription
}

// maxDetail bounds the text of a NACK, in bytes.
const maxDetail = 16 << 10

func detail(err error) *statuspb.Status {
	if err == nil {
		return nil
	}
	text := err.Error()
	if len(text) > maxDetail {
		text = text[:maxDetail] + " …"
	}
	// The wire holds valid UTF-8 only: a message that cannot be sent would end the stream.
	return &statuspb.Status{Code: int32(codes.InvalidArgument), Message: strings.ToValidUTF8(text, "�")}
}
