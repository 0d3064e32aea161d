package istiostats

import (
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/proxy/filter/grpcstats"
	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/peer"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// Deps are what the filter uses of the proxy around it.
type Deps struct {
	// ID, ServiceCluster and Metadata are those of the proxy's node.
	ID, ServiceCluster string
	Metadata           *structpb.Struct
	// Service is what the mesh says of a cluster: host, name and namespace of its service;
	// "" where it says nothing. nil: it says nothing of any.
	Service func(cluster string) (host, name, namespace string)
	Stats   *stats.Store
	Log     *slog.Logger // slog's default if nil
}

// maxSeries bounds each metric, for one set of labels.
const maxSeries = 10_000

// Factory returns the HTTP filter's factory.
func Factory(d Deps) http.Factory {
	return http.Factory{Name: "envoy.filters.http.istio_stats", TypeURLs: []string{TypeURL}, New: func(cfg *anypb.Any, env http.Env) (http.Filter, error) {
		c, err := compile(cfg)
		if err != nil {
			return nil, err
		}
		return &filter{newEnvironment(d, c, env.Direction)}, nil
	}}
}

// environment is what the series of one filter have in common.
type environment struct {
	Deps
	config    *config
	source    bool // it reports for the source
	direction string
	own       *peer.Workload
	endpoints *peer.Memory // what is said of endpoints

	mu    sync.RWMutex
	known map[key]*series
	texts map[string]string // texts of keys, each once
}

func newEnvironment(d Deps, c *config, direction string) *environment {
	if d.Log == nil {
		d.Log = slog.Default()
	}
	if d.Service == nil {
		d.Service = func(string) (host, name, namespace string) { return }
	}
	e := &environment{Deps: d, config: c, source: direction != "INBOUND", direction: strings.ToLower(direction), own: peer.FromMetadata(peer.Metadata(d.Metadata)),
		endpoints: &peer.Memory{}, known: map[key]*series{}, texts: map[string]string{}}
	version := d.Metadata.GetFields()["ISTIO_VERSION"].GetStringValue()
	d.Stats.Family("istio_build", []string{"component", "tag"}, maxSeries, nil).Gauge([]string{"proxy", orUnknown(version)}).Set(1)
	return e
}

// family is the metric in the store.
func (e *environment) family(m *metric, denied bool) *stats.Family {
	return e.Stats.Family(m.name, m.names(denied), maxSeries, func(label string, values int) {
		e.Log.Warn("a metric has too many series: further values of a label are counted as one", "metric", m.name, "label", label, "values", values, "counted_as", stats.Other)
	})
}

// A key is all that the labels of an exchange are made of: equal keys, equal labels.
type key struct {
	remote      *peer.Workload
	cluster     string
	host        string // of the request, where nothing else tells the destination
	peer, local string // principals
	protocol    string
	exprs       string
	flags       streaminfo.Flags
	code, grpc  int // grpc -1: none
	mutual      bool
	denied      string // what in this proxy has denied it, "" for nothing
}

// series are the stats of one key; nil for metrics that are dropped or not touched.
type series struct {
	forgotten                uint64
	standard                 [labelCount]string
	exprs                    []string
	counters                 [metricCount]*stats.Counter
	duration, sent, received *stats.Histogram
	custom                   []*stats.Counter
}

// maxKnown bounds the keys that are remembered. When there are more, all are forgotten;
// their series stay.
const maxKnown = 4 * maxSeries

// text returns the string of b without an allocation if it was asked for before.
func (e *environment) text(b []byte) string {
	e.mu.RLock()
	s, ok := e.texts[string(b)]
	e.mu.RUnlock()
	if ok {
		return s
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.texts) >= maxKnown {
		e.texts = map[string]string{}
	}
	s = string(b)
	e.texts[s] = s
	return s
}

// series finds those of a key.
func (e *environment) find(k key) *series {
	forgotten := e.Stats.Scope("").Forgotten()
	e.mu.RLock()
	s := e.known[k]
	e.mu.RUnlock()
	if s != nil && s.forgotten == forgotten {
		return s
	}
	s = e.newSeries(k)
	s.forgotten = forgotten
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.known) >= maxKnown {
		e.known = map[key]*series{}
	}
	e.known[k] = s
	return s
}

func (e *environment) newSeries(k key) *series {
	s := &series{standard: e.labels(&k)}
	if k.exprs != "" {
		s.exprs = strings.Split(k.exprs, "\x00")
	}
	counter := func(i int) {
		if m := e.config.metrics[i]; m != nil {
			s.counters[i] = e.family(m, k.denied != "").Counter(m.fill(&s.standard, s.exprs))
		}
	}
	histogram := func(i int) *stats.Histogram {
		if m := e.config.metrics[i]; m != nil {
			return e.family(m, k.denied != "").Histogram(m.fill(&s.standard, s.exprs))
		}
		return nil
	}
	if k.protocol == "tcp" {
		for i := tcpOpened; i <= tcpReceived; i++ {
			counter(i)
		}
	} else {
		counter(requestsTotal)
		s.duration, s.received, s.sent = histogram(requestDuration), histogram(requestBytes), histogram(responseBytes)
		if k.protocol == "grpc" {
			counter(requestMessages)
			counter(responseMessages)
		}
	}
	for i := range e.config.custom {
		m := &e.config.custom[i].metric
		s.custom = append(s.custom, e.family(m, k.denied != "").Counter(m.fill(&s.standard, s.exprs)))
	}
	return s
}

// labels are the values of all standard labels.
func (e *environment) labels(k *key) (v [labelCount]string) {
	remote := k.remote
	if remote == nil {
		remote = &peer.Workload{}
	}
	from, to := remote, e.own
	v[reporter], v[policy] = "destination", "none"
	v[sourcePrincipal], v[destinationPrincipal] = orUnknown(k.peer), orUnknown(k.local)
	if e.source {
		from, to = e.own, remote
		v[reporter], v[policy] = "source", "unknown"
		v[sourcePrincipal], v[destinationPrincipal] = orUnknown(k.local), orUnknown(k.peer)
	} else if k.mutual {
		v[policy] = "mutual_tls"
	}
	v[sourceWorkload], v[sourceNamespace], v[sourceCluster] = orUnknown(from.Name), orUnknown(from.Namespace), orUnknown(from.Cluster)
	v[sourceService], v[sourceRevision] = orUnknown(from.Service), orUnknown(from.Revision)
	v[sourceApp], v[sourceVersion] = orUnknown(from.App), orUnknown(from.Version)
	v[destinationWorkload], v[destinationNamespace], v[destinationCluster] = orUnknown(to.Name), orUnknown(to.Namespace), orUnknown(to.Cluster)
	v[destinationCanonical], v[destinationRevision] = orUnknown(to.Service), orUnknown(to.Revision)
	v[destinationApp], v[destinationVersion] = orUnknown(to.App), orUnknown(to.Version)
	host, name, namespace := e.destination(k)
	v[destinationService], v[destinationName], v[destinationServiceNamespace] = orUnknown(host), orUnknown(name), orUnknown(namespace, to.Namespace)
	v[protocol], v[flags], v[deniedBy] = k.protocol, k.flags.String(), k.denied
	v[code] = strconv.Itoa(k.code)
	if k.grpc >= 0 {
		v[grpcStatus] = strconv.Itoa(k.grpc)
	}
	return v
}

// special are clusters that stand for no service.
var special = map[string]bool{"BlackHoleCluster": true, "PassthroughCluster": true, "InboundPassthroughCluster": true}

// destination is the service that was asked: the cluster's; the cluster itself where it
// stands for none; the host of the request where nothing is known.
func (e *environment) destination(k *key) (host, name, namespace string) {
	if special[k.cluster] {
		return k.host, k.cluster, ""
	}
	if k.cluster != "" {
		if host, name, namespace = e.Service(k.cluster); host != "" || name != "" {
			return host, name, namespace
		}
	}
	return k.host, k.host, ""
}

// remote is the workload at the other end, nil when nothing is known of it.
func (e *environment) remote(i *streaminfo.Info) *peer.Workload {
	told := i.DownstreamPeer
	if e.source {
		told = i.UpstreamPeer
	}
	if told != nil {
		if w := told.Workload(); w != nil {
			return w
		}
	}
	if !e.source || i.Upstream == nil {
		return nil
	}
	said, _ := i.Upstream.Metadata.Load()["istio"]["workload"].(string)
	if said == "" {
		return nil
	}
	return e.endpoints.Endpoint(said)
}

// principals are the peer's and our own.
func (e *environment) principals(i *streaminfo.Info) (peer, local string) {
	if e.source {
		return i.UpstreamTLS.Names()
	}
	return first(i.PeerURISANs), first(i.LocalURISANs)
}

// evaluate joins the values of all expressions, "" when there are none.
func (e *environment) evaluate(i *streaminfo.Info, s *http.Stream, remote *peer.Workload) string {
	if len(e.config.exprs) == 0 {
		return ""
	}
	r := &record{info: i, stream: s, env: e, remote: remote}
	var b []byte
	for i, x := range e.config.exprs {
		if i > 0 {
			b = append(b, 0)
		}
		b = append(b, strings.ReplaceAll(x.String(r), "\x00", "")...)
	}
	return e.text(b)
}

// key gathers what the labels of an exchange are made of; s is nil for TCP.
func (e *environment) key(i *streaminfo.Info, s *http.Stream) key {
	k := key{remote: e.remote(i), cluster: i.Cluster, protocol: "tcp", flags: i.Flags, grpc: -1, mutual: i.Peer != nil}
	k.peer, k.local = e.principals(i)
	k.exprs = e.evaluate(i, s, k.remote)
	k.denied = denier(i)
	return k
}

// deniers are how the details begin of what filters of access deny, and what these are called.
var deniers = [...]struct{ details, name string }{
	{"rbac_access_denied_", "rbac"}, {"jwt_authn_access_denied", "jwt_authn"}, {"ext_authz_", "ext_authz"},
}

// denier says which filter of access has denied an exchange, "" if none has.
func denier(i *streaminfo.Info) string {
	for _, d := range deniers {
		if strings.HasPrefix(i.CodeDetails, d.details) || strings.HasPrefix(i.TerminationDetails, d.details) {
			return d.name
		}
	}
	return ""
}

// filter is the HTTP filter.
type filter struct{ *environment }

// OnRequest does nothing: requests are counted at their end.
func (f *filter) OnRequest(*http.Stream, http.Slot) http.Verdict { return http.Continue }

// OnResponse does nothing.
func (f *filter) OnResponse(*http.Stream, http.Slot) http.Verdict { return http.Continue }

// OnEnd counts the request.
func (f *filter) OnEnd(s *http.Stream, _ http.Slot) {
	i := &s.Info
	k := f.key(i, s)
	k.code, k.protocol = i.Code, "http"
	if s.Request.IsGRPC() {
		k.protocol = "grpc"
		if n, ok := format.GRPCStatus(format.Of(s)); ok {
			k.grpc = n
		}
	}
	if !f.config.noHost && len(s.Request.Authority) > 0 && f.hostMatters(k.cluster) {
		k.host = f.text(s.Request.Authority)
	}
	n := f.find(k)
	n.counters[requestsTotal].Inc()
	n.duration.Record(uint64(max(0, i.End.Sub(i.Start)) / time.Millisecond))
	n.received.Record(i.BytesReceived + uint64(requestHead(&s.Request)))
	n.sent.Record(i.BytesSent + uint64(responseHead(&s.Response)))
	if m, ok := i.FilterState[grpcstats.Name].(*grpcstats.Messages); ok {
		n.counters[requestMessages].Add(m.Request)
		n.counters[responseMessages].Add(m.Response)
	}
	f.countCustom(n, i, s)
}

// hostMatters reports that only the request's host tells the destination.
func (e *environment) hostMatters(cluster string) bool {
	if cluster == "" || special[cluster] {
		return true
	}
	host, name, _ := e.Service(cluster)
	return host == "" && name == ""
}

func (e *environment) countCustom(n *series, i *streaminfo.Info, s *http.Stream) {
	if len(e.config.custom) == 0 {
		return
	}
	r := &record{info: i, stream: s, env: e, remote: e.remote(i)}
	for c, d := range e.config.custom {
		if v, ok := d.value.Int(r); ok {
			n.custom[c].Add(v)
		}
	}
}
