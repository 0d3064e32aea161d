package control

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
)

// AutoRegistration says how workloads outside of Kubernetes register themselves.
type AutoRegistration struct {
	// Off has nobody register: who asks for it is served as everybody else.
	Off bool
	// Unchecked takes everybody for healthy who has registered.
	Unchecked bool
	// Grace is how long a workload stays in the mesh whose stream has ended; zero is 10 s.
	Grace time.Duration
}

// Node metadata of a workload that registers itself, and annotations of its WorkloadEntry.
const (
	groupKey         = "AUTO_REGISTER_GROUP"
	groupAnnotation  = "istio.io/autoRegistrationGroup"
	joinedAnnotation = "istio.io/connectedAt"
	healthAnnotation = "proxy.istio.io/health-checks-enabled"
)

// registrations are the workloads that have registered themselves: agents name a
// WorkloadGroup, from whose template each gets a WorkloadEntry that lasts as long as its
// stream, and a grace. One whose agent tells of its health counts while it is healthy.
//
// They are kept by this control plane alone: after a restart agents come back and register
// again.
type registrations struct {
	o     AutoRegistration
	log   *slog.Logger
	store *config.Store // of those that count; the builder reads it

	mu  sync.Mutex
	all map[config.Key]*registration
}

// maxRegistered bounds them.
const maxRegistered = 100_000

// A registration is that of one workload.
type registration struct {
	entry   *config.Config
	streams int
	healthy bool
	expiry  *time.Timer // nil while it is connected
}

func newRegistrations(o AutoRegistration, log *slog.Logger) *registrations {
	if o.Grace == 0 {
		o.Grace = 10 * time.Second
	}
	return &registrations{o: o, log: log, store: config.NewStore(), all: map[config.Key]*registration{}}
}

// groupOf is the WorkloadGroup that a proxy wants to be of, "" for none.
func groupOf(p *mesh.Proxy) string {
	name, _ := p.Text(groupKey)
	return name
}

// admit reads a node and refuses one that wants to be of a group that is not there: its
// agent comes again.
func (s *Server) admit(ctx context.Context, node *corepb.Node) (*mesh.Proxy, error) {
	p, err := mesh.ParseProxy(node)
	if err != nil {
		return nil, err
	}
	p.Anonymous, p.Account = !proven(ctx), accountOf(ctx)
	if s.registrations.o.Off || groupOf(p) == "" {
		return p, nil
	}
	group := s.snapshot.Load().Config.Get(config.WorkloadGroup, p.Namespace, groupOf(p))
	if group == nil {
		return nil, fmt.Errorf("auto-registration: there is no WorkloadGroup %s/%s", p.Namespace, groupOf(p))
	}
	return p, mayJoin(ctx, p, group)
}

// joins takes a stream of a proxy into account.
func (r *registrations) joins(snap *mesh.Snapshot, p *mesh.Proxy) {
	if r.o.Off || groupOf(p) == "" {
		return
	}
	group := snap.Config.Get(config.WorkloadGroup, p.Namespace, groupOf(p))
	if group == nil {
		return // it has just gone
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	entry := entryOf(group, p, time.Now())
	one := r.all[entry.Key]
	switch {
	case one == nil:
		if len(r.all) >= maxRegistered {
			r.log.Error("too many workloads register themselves", "limit", maxRegistered, "left_out", entry.Key)
			return
		}
		one = &registration{entry: entry, healthy: r.o.Unchecked || entry.Annotations[healthAnnotation] == ""}
		r.all[entry.Key] = one
		r.log.Info("workload has registered", "entry", entry.Key, "group", group.Name)
	case !sameEntry(one.entry, entry): // it was started anew
		one.entry = entry
	}
	if one.expiry != nil {
		one.expiry.Stop()
		one.expiry = nil
	}
	one.streams++
	r.settle(one)
}

// leaves takes back what joins has done; who has no stream left is forgotten after the grace.
func (r *registrations) leaves(p *mesh.Proxy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.all[entryKey(p)]
	if one == nil || one.streams == 0 {
		return
	}
	if one.streams--; one.streams > 0 {
		return
	}
	one.expiry = time.AfterFunc(r.o.Grace, func() { r.expire(one) })
}

func (r *registrations) expire(one *registration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if one.streams > 0 || r.all[one.entry.Key] != one {
		return // it came back just now
	}
	delete(r.all, one.entry.Key)
	r.store.Apply(nil, []config.Key{one.entry.Key})
	r.log.Info("workload is gone", "entry", one.entry.Key)
}

// health takes down what an agent says of its workload: what is wrong, or "".
func (r *registrations) health(p *mesh.Proxy, wrong string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.all[entryKey(p)]
	if one == nil || r.o.Unchecked || one.healthy == (wrong == "") {
		return
	}
	one.healthy = wrong == ""
	if one.healthy {
		r.log.Info("workload is healthy", "entry", one.entry.Key)
	} else {
		r.log.Warn("workload is not healthy: it gets no requests", "entry", one.entry.Key, "error", wrong)
	}
	r.settle(one)
}

// settle has a workload count, or not; r.mu is held.
func (r *registrations) settle(one *registration) {
	if one.healthy {
		r.store.Apply([]*config.Config{one.entry}, nil)
	} else {
		r.store.Apply(nil, []config.Key{one.entry.Key})
	}
}

// stop ends the timers.
func (r *registrations) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.all {
		if one.expiry != nil {
			one.expiry.Stop()
		}
	}
}

// maxName is the longest name of an object.
const maxName = 253

// entryKey is the name of a proxy's WorkloadEntry: GROUP-ADDRESS, and the network if one is
// named. Of one that is too long the end counts, which tells workloads apart.
func entryKey(p *mesh.Proxy) config.Key {
	name := groupOf(p) + "-" + strings.ReplaceAll(p.Addresses[0], ":", "-")
	if p.Network != "" {
		name += "-" + p.Network
	}
	return config.Key{Kind: config.WorkloadEntry, Namespace: p.Namespace, Name: name[max(0, len(name)-maxName):]}
}

// entryOf is the WorkloadEntry of a proxy: the group's template, with labels of the group's
// metadata over the template's and those of the node over both.
func entryOf(group *config.Config, p *mesh.Proxy, now time.Time) *config.Config {
	spec := group.Spec.(*networking.WorkloadGroup)
	entry := &networking.WorkloadEntry{}
	if spec.Template != nil {
		entry = proto.Clone(spec.Template).(*networking.WorkloadEntry)
	}
	entry.Address = p.Addresses[0]
	entry.Labels = over(entry.Labels, spec.GetMetadata().GetLabels(), p.Labels)
	delete(entry.Labels, localityLabel)
	if p.Network != "" {
		entry.Network = p.Network
	}
	if p.Locality != (registry.Locality{}) {
		entry.Locality = p.Locality.String()
	}
	annotations := over(map[string]string{groupAnnotation: group.Name, joinedAnnotation: now.UTC().Format(time.RFC3339Nano)}, spec.GetMetadata().GetAnnotations())
	if tellsHealth(p) {
		annotations[healthAnnotation] = "true"
	}
	return &config.Config{Key: entryKey(p), APIVersion: "networking.istio.io/v1", Labels: entry.Labels, Annotations: annotations,
		CreationTime: now.UTC().Truncate(time.Second), Spec: entry}
}

// sameEntry reports whether two entries say the same of a workload, but for when it came.
func sameEntry(a, b *config.Config) bool {
	return proto.Equal(a.Spec.(*networking.WorkloadEntry), b.Spec.(*networking.WorkloadEntry)) && a.Annotations[healthAnnotation] == b.Annotations[healthAnnotation]
}

// localityLabel says where a workload is; its entry has a field for that.
const localityLabel = "istio-locality"

// tellsHealth reports whether the proxy's agent probes the workload.
func tellsHealth(p *mesh.Proxy) bool {
	c, _ := p.Metadata["PROXY_CONFIG"].(map[string]any)
	return c["readinessProbe"] != nil
}

// over lays the later maps over the earlier ones.
func over(all ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range all {
		maps.Copy(out, m)
	}
	return out
}
