package relay

import (
	"context"
	"maps"
	"slices"
	"strconv"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A downstream is the stream of the proxy.
type downstream struct {
	out   chan *discoverypb.DeltaDiscoveryResponse
	gone  chan struct{} // closed when another proxy has come
	queue []*discoverypb.DeltaDiscoveryResponse
}

// next is what the proxy gets next, and the channel by which it does.
func (d *downstream) next() (chan<- *discoverypb.DeltaDiscoveryResponse, *discoverypb.DeltaDiscoveryResponse) {
	if d == nil || len(d.queue) == 0 {
		return nil, nil
	}
	return d.out, d.queue[0]
}

// delivery is a response that the proxy has not judged yet.
type delivery struct {
	epoch int    // of the link that it came by; 0: from the journal
	nonce string // the control plane's
	m     *discoverypb.DeltaDiscoveryResponse
}

// service is what the proxy talks to.
type service struct {
	discoverypb.UnimplementedAggregatedDiscoveryServiceServer
	r *Relay
}

// DeltaAggregatedResources serves the proxy until its stream ends, another proxy comes, or the
// relay ends.
func (s *service) DeltaAggregatedResources(stream discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	r, ctx := s.r, stream.Context()
	d := &downstream{out: make(chan *discoverypb.DeltaDiscoveryResponse), gone: make(chan struct{})}
	select {
	case r.joins <- d:
	case <-r.ended:
		return status.Error(codes.Unavailable, "the agent ends")
	case <-ctx.Done():
		return ctx.Err()
	}
	read := make(chan error, 1)
	go func() { read <- r.read(stream, d) }()
	defer func() {
		select {
		case r.leaves <- d:
		case <-r.ended:
		}
	}()
	for {
		select {
		case m := <-d.out:
			if err := stream.Send(m); err != nil {
				return err
			}
		case err := <-read:
			return err
		case <-d.gone:
			return status.Error(codes.Aborted, "another proxy has connected")
		case <-r.ended:
			return status.Error(codes.Unavailable, "the agent ends")
		}
	}
}

func (r *Relay) read(stream discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesServer, d *downstream) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case r.asks <- ask{d, m}:
		case <-d.gone:
			return nil
		case <-r.ended:
			return nil
		}
	}
}

// join takes a new proxy in, which has nothing yet: what the control plane knows of the one
// before is forgotten with its stream.
func (r *Relay) join(d *downstream) {
	if r.proxy != nil {
		r.leave()
	}
	r.proxy = d
}

func (r *Relay) leave() {
	close(r.proxy.gone)
	r.proxy = nil
	if len(r.types) > 0 && r.up != nil {
		r.up.over = true
		r.up.cancel()
	}
	r.types, r.stored = nil, false
	clear(r.pending)
}

func (r *Relay) kindOf(url string) *kind {
	for _, list := range [][]*kind{r.types, r.own} {
		if i := slices.IndexFunc(list, func(k *kind) bool { return k.url == url }); i >= 0 {
			return list[i]
		}
	}
	return nil
}

// ask takes a request of the proxy: a judgement of a response, a change of a subscription, or
// both.
func (r *Relay) ask(m *discoverypb.DeltaDiscoveryRequest) {
	if m.GetNode() != nil {
		r.node = m.GetNode()
	}
	k := r.kindOf(m.GetTypeUrl())
	first := k == nil
	if first {
		k = newKind(m.GetTypeUrl())
		r.types = append(r.types, k)
	}
	k.change(m, first)
	if r.journal != nil && len(m.GetResourceNamesUnsubscribe()) > 0 {
		r.keep(r.journal.forget(k.url, func(n string) bool {
			return slices.ContainsFunc(m.GetResourceNamesUnsubscribe(), func(name string) bool { return k.means(name, n) })
		}))
	}
	d, judged := r.pending[m.GetResponseNonce()]
	if judged {
		delete(r.pending, m.GetResponseNonce())
		r.judge(k, d, m)
	}
	switch {
	case r.connected() && k.opened != r.epoch:
		r.open(k)
		r.openOwn()
	case r.connected():
		r.forward(m, d, judged)
	case r.stored:
		r.serveStored(k, m.GetResourceNamesSubscribe(), first)
	}
}

// judge keeps what the proxy accepted.
func (r *Relay) judge(k *kind, d delivery, m *discoverypb.DeltaDiscoveryRequest) {
	if m.GetErrorDetail() != nil {
		r.count(func(s *Status) { s.Refused++ })
		r.log.Warn("the proxy refuses configuration", "type", k.url, "error", m.GetErrorDetail().GetMessage())
		return
	}
	k.accept(d.m)
	if r.journal == nil || d.epoch == 0 {
		return
	}
	if k.anew && d.epoch == r.epoch {
		k.anew = false
		r.keep(r.journal.retain(k.url, k.held))
	}
	r.keep(r.journal.add(d.m))
}

// keep gives the journal up when it cannot be written: half a configuration is worse than none.
func (r *Relay) keep(err error) {
	if err == nil || r.journal == nil {
		return
	}
	r.log.Warn("accepted configuration is not kept any more: a start without control plane will wait for it", "error", err)
	_ = r.journal.discard()
	r.journal = nil
}

// forward hands a request on, with the control plane's own nonce. A judgement of a response
// of an earlier link is for nobody.
func (r *Relay) forward(m *discoverypb.DeltaDiscoveryRequest, d delivery, judged bool) {
	out := &discoverypb.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(),
		ResourceNamesSubscribe: m.GetResourceNamesSubscribe(), ResourceNamesUnsubscribe: m.GetResourceNamesUnsubscribe()}
	current := judged && d.epoch == r.epoch
	if current {
		out.ResponseNonce, out.ErrorDetail = d.nonce, m.GetErrorDetail()
	}
	if current || len(out.ResourceNamesSubscribe)+len(out.ResourceNamesUnsubscribe) > 0 {
		r.request(out)
	}
}

// deliver hands a response to the proxy under a nonce of the relay.
func (r *Relay) deliver(d delivery) {
	if r.proxy == nil {
		return
	}
	r.nonce++
	nonce := strconv.Itoa(r.nonce)
	r.pending[nonce] = d
	r.proxy.queue = append(r.proxy.queue, &discoverypb.DeltaDiscoveryResponse{
		SystemVersionInfo: d.m.GetSystemVersionInfo(), Resources: d.m.GetResources(), TypeUrl: d.m.GetTypeUrl(),
		RemovedResources: d.m.GetRemovedResources(), Nonce: nonce, ControlPlane: d.m.GetControlPlane(),
	})
}

// standIn serves the proxy from the journal, as the control plane is away.
func (r *Relay) standIn() {
	if r.stored || r.journal == nil || r.journal.empty() {
		return
	}
	r.stored = true
	for _, k := range r.types {
		r.serveStored(k, slices.Collect(maps.Keys(k.names)), true)
	}
}

// serveStored answers a subscription, or more names of one, from the journal.
func (r *Relay) serveStored(k *kind, names []string, whole bool) {
	if r.journal == nil || k.answered && whole || !r.journal.knows(k.url) {
		return
	}
	wanted := func(name string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return k.means(n, name) }) || whole && k.wants(name)
	}
	m, err := r.journal.read(k.url, wanted)
	if err != nil {
		r.keep(err)
		return
	}
	if len(m.GetResources()) == 0 && !(whole && k.all) {
		return
	}
	if !r.Status().Stored {
		r.log.Warn("the control plane is away: the proxy is given what it accepted last", "control_plane", r.o.Address)
		r.count(func(s *Status) { s.Stored = true })
	}
	k.answered = true
	r.deliver(delivery{m: m})
}

// StreamAggregatedResources serves a proxy that wants whole states: message by message, by a
// stream of its own.
func (s *service) StreamAggregatedResources(stream discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	context.AfterFunc(s.r.over, cancel)
	conn, err := s.r.dial(ctx)
	if err != nil {
		return status.Errorf(codes.Unavailable, "control plane %s: %v", s.r.o.Address, err)
	}
	defer conn.Close()
	up, err := discoverypb.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		return err
	}
	go func() {
		defer cancel()
		for {
			m, err := stream.Recv()
			if err != nil || up.Send(m) != nil {
				return
			}
		}
	}()
	for {
		m, err := up.Recv()
		if err != nil {
			return err
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
}
