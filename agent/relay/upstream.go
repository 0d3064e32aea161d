package relay

import (
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/lateen-mesh/lateen/nametable"
	"github.com/lateen-mesh/lateen/wellknown"
)

// Times of the link to the control plane.
const (
	retryFirst   = 50 * time.Millisecond
	retryMost    = 5 * time.Second
	dialTimeout  = 5 * time.Second
	silenceBound = 5 * time.Second  // of a control plane that is connected, before the journal stands in
	sayAfter     = time.Second      // the first line about waiting
	sayEvery     = 30 * time.Second // and the next ones
	// Servers of grpc-go refuse pings more frequent than once in five minutes unless told otherwise.
	pingEvery   = 5*time.Minute + 10*time.Second
	pingTimeout = 20 * time.Second
)

// authority is what the control plane is called within a cluster.
const authority = "istiod.istio-system.svc"

// A link is one stream to the control plane.
type link struct {
	in     chan *discoverypb.DeltaDiscoveryResponse
	out    chan *discoverypb.DeltaDiscoveryRequest
	cancel context.CancelFunc
	queue  []*discoverypb.DeltaDiscoveryRequest
	node   bool // was sent
	over   bool // cancelled: what still comes by it does not count
}

func (l *link) next() (chan<- *discoverypb.DeltaDiscoveryRequest, *discoverypb.DeltaDiscoveryRequest) {
	if l == nil || len(l.queue) == 0 {
		return nil, nil
	}
	return l.out, l.queue[0]
}

func (l *link) received() <-chan *discoverypb.DeltaDiscoveryResponse {
	if l == nil {
		return nil
	}
	return l.in
}

// connect opens one stream after the other until ctx ends.
func (r *Relay) connect(ctx context.Context) {
	since, said := time.Now(), time.Time{}
	for failures := 0; ctx.Err() == nil; failures++ {
		heard, err := r.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if heard {
			failures, since, said = 0, time.Now(), time.Time{}
		}
		select {
		case r.lost <- err:
		case <-ctx.Done():
			return
		}
		if now := time.Now(); now.Sub(since) >= sayAfter && now.Sub(said) >= sayEvery {
			said = now
			r.log.Warn("waiting for the control plane", "at", r.o.Address, "since", since.Format(time.RFC3339), "error", err)
		}
		again := time.NewTimer(delay(failures))
		select {
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
	}
}

// delay is exponential, half of it at random.
func delay(failures int) time.Duration {
	most := retryMost
	if failures < 7 {
		most = min(retryFirst<<failures, retryMost)
	}
	return most/2 + time.Duration(rand.Int64N(int64(most/2)))
}

// dial makes a connection for one stream.
func (r *Relay) dial(ctx context.Context) (*grpc.ClientConn, error) {
	dialling, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := r.o.Dial(dialling)
	if err != nil {
		return nil, err
	}
	once := make(chan net.Conn, 1)
	once <- c
	conn, err := grpc.NewClient("passthrough:///"+authority,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errors.New("the connection is over")
			}
		}),
		grpc.WithAuthority(authority), grpc.WithPerRPCCredentials(bearer{r.o.Token}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.WithReadBufferSize(8<<10), grpc.WithWriteBufferSize(8<<10),
		grpc.WithDisableServiceConfig(), grpc.WithNoProxy())
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return conn, nil
}

// session keeps one stream until it breaks; heard says that a response came.
func (r *Relay) session(ctx context.Context) (heard bool, err error) {
	conn, err := r.dial(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := discoverypb.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return false, err
	}
	l := &link{in: make(chan *discoverypb.DeltaDiscoveryResponse), out: make(chan *discoverypb.DeltaDiscoveryRequest), cancel: cancel}
	select {
	case r.links <- l:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	var sender sync.WaitGroup
	sender.Go(func() {
		defer cancel()
		for {
			select {
			case m := <-l.out:
				if stream.Send(m) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	defer sender.Wait()
	defer cancel()
	for {
		m, err := stream.Recv()
		if err != nil {
			return heard, err
		}
		heard = true
		select {
		case l.in <- m:
		case <-ctx.Done():
			return heard, ctx.Err()
		}
	}
}

// connected reports whether there is a link that counts.
func (r *Relay) connected() bool { return r.up != nil && !r.up.over }

// linked subscribes to everything on a new link.
func (r *Relay) linked(l *link) {
	r.up = l
	r.epoch++
	r.drainer = false
	r.listenFor(silenceBound)
	for _, k := range r.types {
		r.open(k)
	}
	r.openOwn()
}

// listenFor has the journal stand in when a link says nothing for so long; 0 ends the wait.
func (r *Relay) listenFor(d time.Duration) {
	if r.patience != nil {
		r.patience.Stop()
		r.patience, r.silence = nil, nil
	}
	if d > 0 {
		r.patience = time.NewTimer(d)
		r.silence = r.patience.C
	}
}

// openOwn subscribes to what the relay wants, after what the proxy does: the first message of a
// link says what program the proxy is, and the control plane goes by it.
func (r *Relay) openOwn() {
	if !r.up.node {
		return
	}
	for _, k := range r.own {
		if k.opened != r.epoch {
			r.open(k)
		}
	}
	r.tellHealth()
}

// open subscribes to a type on the link.
func (r *Relay) open(k *kind) {
	if !k.all && len(k.names) == 0 {
		return // an opening without names would be for all
	}
	k.opened, k.anew = r.epoch, len(k.held) == 0
	r.request(k.opening())
}

// request sends to the control plane; the first one of a link says who asks.
func (r *Relay) request(m *discoverypb.DeltaDiscoveryRequest) {
	if !r.up.node {
		m.Node, r.up.node = r.node, true
	}
	r.up.queue = append(r.up.queue, m)
}

// unlinked is called for each link that broke and for each attempt that failed.
func (r *Relay) unlinked(err error) {
	if r.up != nil {
		r.log.Info("the control plane has closed the stream", "control_plane", r.o.Address, "reason", reason(err))
	}
	r.up = nil
	r.listenFor(0)
	r.drained()
	if r.Status().Connected {
		r.count(func(s *Status) { s.Connected, s.Since = false, time.Now() })
	}
	r.standIn()
}

func reason(err error) string {
	if errors.Is(err, io.EOF) {
		return "it has ended"
	}
	return status.Convert(err).Message()
}

// receive takes a response of the control plane.
func (r *Relay) receive(m *discoverypb.DeltaDiscoveryResponse) {
	if r.up.over {
		return
	}
	r.listenFor(0)
	r.identified(m.GetControlPlane())
	if s := r.Status(); !s.Connected {
		r.log.Info("connected to the control plane", "control_plane", r.o.Address, "after", time.Since(s.Since).Round(time.Millisecond))
		r.count(func(s *Status) { s.Connected, s.Stored, s.Since = true, false, time.Now() })
	}
	r.stored = false
	switch k := r.kindOf(m.GetTypeUrl()); {
	case m.GetTypeUrl() == wellknown.DrainType:
		r.drained()
	case k == nil:
		r.log.Debug("a response of a type that nobody asked for", "type", m.GetTypeUrl())
	case m.GetTypeUrl() == nametable.Type && r.o.Names != nil:
		r.takeNames(k, m)
	case m.GetTypeUrl() == wellknown.ProxyConfigType && r.o.Trust != nil:
		r.takeTrust(k, m)
	default:
		k.answered = true
		r.deliver(delivery{epoch: r.epoch, nonce: m.GetNonce(), m: m})
	}
}

// takeNames accepts or refuses a name table.
func (r *Relay) takeNames(k *kind, m *discoverypb.DeltaDiscoveryResponse) {
	answer := &discoverypb.DeltaDiscoveryRequest{TypeUrl: nametable.Type, ResponseNonce: m.GetNonce()}
	if err := r.publish(m); err != nil {
		answer.ErrorDetail = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: err.Error()}
		r.log.Warn("name table refused", "error", err)
	} else {
		k.accept(m)
		if r.journal != nil {
			r.keep(r.journal.add(m))
		}
	}
	r.request(answer)
}

func (r *Relay) publish(m *discoverypb.DeltaDiscoveryResponse) error {
	table := nametable.Table{}
	for _, res := range m.GetResources() {
		part, err := nametable.Unmarshal(res.GetResource().GetValue())
		if err != nil {
			return err
		}
		maps.Copy(table, part)
	}
	if len(m.GetResources())+len(m.GetRemovedResources()) > 0 {
		r.o.Names(table)
	}
	return nil
}

// serveNames hands the table of the journal out until there is a better one.
func (r *Relay) serveNames() {
	if r.o.Names == nil || r.journal == nil {
		return
	}
	m, err := r.journal.read(nametable.Type, func(string) bool { return true })
	if err == nil {
		err = r.publish(m)
	}
	r.keep(err)
}
