// Package relay stands between a proxy and its control plane: it serves the proxy's ADS stream
// on a Unix socket and keeps one stream to the control plane.
//
//	proxy ── Unix socket ─► Relay ── one delta ADS stream ─► control plane
//	                          ├ name table ─► Options.Names
//	                          └ journal: a file with what the proxy accepted
//
// The proxy's stream stays open whatever becomes of the other one. When the control plane comes
// back, each type is subscribed again with the versions that the proxy holds, so that only what
// changed is sent and nothing is torn down. A control plane that is away when the proxy starts
// is stood in for by the journal, if it holds something for this node; else the proxy waits,
// and a line of the log says for whom and since when.
//
// The relay adds subscriptions of its own on the same stream, once the proxy has made its
// first: the table of names, the roots of the mesh, and, when the pod leaves, [wellknown.DrainType]. By the same way
// it tells of the health of the workload, where somebody looks after it.
//
// A proxy that asks in the state-of-the-world form gets a stream of its own to the control plane,
// message by message, without the journal: what it accepted is only known as a whole there.
//
// Everything that a Relay knows belongs to the goroutine of Run; messages come to it and leave
// it by channels.
package relay

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/agent/socket"
	"github.com/lateen-mesh/lateen/nametable"
	"github.com/lateen-mesh/lateen/wellknown"
)

// maxMessage bounds one message, in bytes.
const maxMessage = 64 << 20

// Options say who talks to whom.
type Options struct {
	// Node is the proxy's, as its bootstrap has it: the journal holds what it accepted.
	Node *corepb.Node
	// Socket is the path of the socket for the proxy. A file that is there is removed.
	Socket string
	// Shared lets programs of other users use the socket, too.
	Shared bool
	// Journal is the path of the file with accepted resources; "" keeps none.
	Journal string
	// Dial connects to the control plane.
	Dial func(ctx context.Context) (net.Conn, error)
	// Token is the bearer token to show, read anew for each stream; "" is none. It may be nil.
	Token func() (string, error)
	// Address names the control plane in the log.
	Address string
	// Names takes each new name table. Nil: names are not asked for. It must not block.
	Names func(nametable.Table)
	// Trust takes what the control plane says of the roots of the mesh, and answers, from any
	// goroutine but the caller's, when the proxy has taken them: nil, or why it has not. An error may be followed
	// by nil. Nil: roots are not asked for. It must not block.
	Trust func(m *meshconfig.ProxyConfig, answer func(error))
	// Logger is slog's default if nil.
	Logger *slog.Logger
}

// A Status is how the link to the control plane is.
type Status struct {
	Connected bool
	Since     time.Time // when it became so
	Stored    bool      // the proxy got its configuration from the journal
	Requests  uint64    // sent to the control plane
	Responses uint64    // received from it
	Refused   uint64    // responses that the proxy did not accept
}

// A Relay passes configuration on. Its methods may be called by any goroutine.
type Relay struct {
	o        Options
	log      *slog.Logger
	listener net.Listener
	server   *grpc.Server

	joins  chan *downstream
	leaves chan *downstream
	asks   chan ask
	links  chan *link
	lost   chan error
	drains chan chan struct{}
	health chan string
	trusts chan trusted
	ended  chan struct{}   // closed when Run is over
	over   context.Context // likewise
	end    context.CancelFunc

	status atomic.Pointer[Status]

	// Of Run's goroutine only.
	journal  *journal
	proxy    *downstream
	types    []*kind // that the proxy subscribed to, in that order
	own      []*kind // that the relay did
	up       *link
	epoch    int // counts links
	node     *corepb.Node
	nonce    int
	pending  map[string]delivery
	waiting  []chan struct{}  // for the answer to a drain
	wrong    *string          // with the workload, as was last said; nil: nobody knows
	told     int              // the epoch in which the control plane was told
	drainer  bool             // the control plane knows drains
	stored   bool             // the journal stands in for the control plane
	silence  <-chan time.Time // a link said nothing for long
	patience *time.Timer      // of silence
}

// ask is a request of the proxy.
type ask struct {
	from *downstream
	m    *discoverypb.DeltaDiscoveryRequest
}

// Listen opens the socket and reads the journal. Without a journal that can be used it goes on.
func Listen(o Options) (*Relay, error) {
	r := &Relay{
		o: o, log: cmp.Or(o.Logger, slog.Default()), node: cmp.Or(o.Node, &corepb.Node{}),
		joins: make(chan *downstream), leaves: make(chan *downstream), asks: make(chan ask), links: make(chan *link), lost: make(chan error),
		drains: make(chan chan struct{}), health: make(chan string), trusts: make(chan trusted), ended: make(chan struct{}), pending: map[string]delivery{},
	}
	r.over, r.end = context.WithCancel(context.Background())
	if o.Names != nil {
		r.own = append(r.own, newKind(nametable.Type))
	}
	if o.Trust != nil {
		r.own = append(r.own, newKind(wellknown.ProxyConfigType))
	}
	r.status.Store(&Status{Since: time.Now()})
	if o.Journal != "" {
		var err error
		if r.journal, err = openJournal(o.Journal, o.Node.GetId()); err != nil {
			r.log.Warn("accepted configuration is not kept: a start without control plane will wait for it", "error", err)
		}
	}
	listen := socket.Listen
	if o.Shared {
		listen = socket.Shared
	}
	l, err := listen(o.Socket)
	if err != nil {
		if r.journal != nil {
			_ = r.journal.close()
		}
		return nil, fmt.Errorf("socket for the proxy: %w", err)
	}
	r.listener = l
	r.server = grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage), grpc.ReadBufferSize(8<<10), grpc.WriteBufferSize(8<<10), grpc.WaitForHandlers(true))
	discoverypb.RegisterAggregatedDiscoveryServiceServer(r.server, &service{r: r})
	return r, nil
}

// Status is how the link is now.
func (r *Relay) Status() Status { return *r.status.Load() }

// Drain asks the control plane to send nothing to this proxy any more, and returns once it
// says that the others know, when ctx ends, or at once if it does not know such requests.
func (r *Relay) Drain(ctx context.Context) {
	done := make(chan struct{})
	select {
	case r.drains <- done:
	case <-r.ended:
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-r.ended:
	case <-ctx.Done():
	}
}

// Health has the control plane know how the workload beside the proxy is: what is wrong, or
// "". What was last said is told to each control plane that the relay connects to.
func (r *Relay) Health(wrong string) {
	select {
	case r.health <- wrong:
	case <-r.ended:
	}
}

// Run relays until ctx ends. It is called once.
func (r *Relay) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if err := r.server.Serve(r.listener); err != nil {
			r.log.Error("socket for the proxy is closed", "error", err)
		}
	})
	tasks.Go(func() { r.connect(ctx) })
	defer tasks.Wait()
	defer r.server.Stop()
	defer r.end()
	defer close(r.ended)
	defer cancel()
	if r.journal != nil {
		defer func() { _ = r.journal.close() }()
	}
	defer r.listenFor(0)
	r.serveNames()
	for r.step(ctx) {
	}
}

// step does one thing; false: ctx has ended.
func (r *Relay) step(ctx context.Context) bool {
	toProxy, response := r.proxy.next()
	toControl, request := r.up.next()
	select {
	case <-ctx.Done():
		return false
	case d := <-r.joins:
		r.join(d)
	case d := <-r.leaves:
		if d == r.proxy {
			r.leave()
		}
	case a := <-r.asks:
		if a.from == r.proxy {
			r.ask(a.m)
		}
	case toProxy <- response:
		r.proxy.queue = r.proxy.queue[1:]
	case toControl <- request:
		r.up.queue = r.up.queue[1:]
		r.count(func(s *Status) { s.Requests++ })
	case l := <-r.links:
		r.linked(l)
	case m := <-r.up.received():
		r.count(func(s *Status) { s.Responses++ })
		r.receive(m)
	case err := <-r.lost:
		r.unlinked(err)
	case done := <-r.drains:
		r.drain(done)
	case t := <-r.trusts:
		r.answerTrust(t)
	case wrong := <-r.health:
		r.wrong, r.told = &wrong, 0
		if r.connected() {
			r.tellHealth()
		}
	case <-r.silence:
		r.listenFor(0)
		r.standIn()
	}
	return true
}

func (r *Relay) count(change func(*Status)) {
	s := r.Status()
	change(&s)
	r.status.Store(&s)
}

// drain asks for it once; whoever waits is told by the answer, or by the loss of the link.
func (r *Relay) drain(done chan struct{}) {
	if !r.connected() || !r.drainer {
		close(done)
		return
	}
	r.waiting = append(r.waiting, done)
	if len(r.waiting) == 1 {
		r.request(&discoverypb.DeltaDiscoveryRequest{TypeUrl: wellknown.DrainType})
	}
}

// tellHealth says how the workload is unless the link knows it, or does not know yet who
// speaks.
func (r *Relay) tellHealth() {
	if r.wrong == nil || r.told == r.epoch || !r.up.node {
		return
	}
	r.told = r.epoch
	m := &discoverypb.DeltaDiscoveryRequest{TypeUrl: wellknown.HealthType}
	if *r.wrong != "" {
		m.ErrorDetail = &statuspb.Status{Code: int32(codes.Unavailable), Message: *r.wrong}
	}
	r.request(m)
}

func (r *Relay) drained() {
	for _, done := range r.waiting {
		close(done)
	}
	r.waiting = nil
}

// identified notes what the control plane can do.
func (r *Relay) identified(c *corepb.ControlPlane) {
	if c != nil {
		r.drainer = strings.Contains(c.GetIdentifier(), wellknown.DrainIdentifier)
	}
}
