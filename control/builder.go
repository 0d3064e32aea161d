package control

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// Debounce is how long a burst of changes is collected.
type Debounce struct{ After, Max time.Duration }

// build makes snapshots, one at a time: the first of what New has read and of all that a
// Kubernetes API has, then one for each burst of changes.
func (s *Server) build(ctx context.Context) error {
	files, stopFiles := s.store.Watch()
	defer stopFiles()
	api, stopAPI := s.apiStore.Watch()
	defer stopAPI()
	joined, stopJoined := s.registrations.store.Watch()
	defer stopJoined()
	if s.api != nil {
		select {
		case <-s.api.Synced():
		case <-ctx.Done():
			return nil
		}
	}
	s.rebuild(ctx)
	close(s.built)
	var authority <-chan struct{}
	if s.authority != nil {
		authority = s.authority.changed
	}
	for s.debounced(ctx, authority, files, api, joined) {
		s.rebuild(ctx)
	}
	return nil
}

// objects are those in force, of files, of an API and of workloads that have registered
// themselves, and what is wrong with having them of both.
func (s *Server) objects() (*config.Set, []Problem) {
	set, shadowed := config.Join(s.store.Current(), s.apiStore.Current())
	problems := []Problem{}
	for _, o := range shadowed {
		if o.Kind != config.Namespace { // whose existence is all that both say
			problems = append(problems, Problem{Object: o.Key.String(), Severity: config.Warning.String(),
				Message: "is in the Kubernetes API too: the one of " + set.Get(o.Kind, o.Namespace, o.Name).Source.String() + " is used"})
		}
	}
	set, _ = config.Join(set, s.registrations.store.Current())
	return set, problems
}

// never is longer than anybody waits.
const never = 24 * 365 * time.Hour

// debounced waits for a burst of signals to be over; false when the context ends. A proxy
// that is about to end waits for nobody, nor does the news that a Pod is to end, as long
// as building the mesh leaves time for other things.
func (s *Server) debounced(ctx context.Context, authority, files, api, joined <-chan struct{}) bool {
	quiet, last := time.NewTimer(never), time.NewTimer(never) // set by the first signal of a burst
	defer quiet.Stop()
	defer last.Stop()
	burst := false
	for {
		select {
		case <-s.departures.orders.given:
			return true
		case <-s.asked.given:
			return true
		case <-quiet.C:
			return true
		case <-last.C:
			return true
		case <-ctx.Done():
			return false
		case <-api:
			if s.podEnds() && time.Since(s.lastBuilt) > s.lastTook {
				return true
			}
		case <-files:
		case <-joined:
		case <-s.meshFile.changed:
		case <-s.tokens.fetcher.Changed():
		case <-s.readers.Changed():
		case <-authority:
		}
		if !burst {
			burst = true
			last.Reset(s.o.Debounce.Max)
		}
		quiet.Reset(s.o.Debounce.After)
	}
}

// podEnds reports whether a Pod of the Snapshot is to end of which it does not know that.
func (s *Server) podEnds() bool {
	known := s.snapshot.Load().Config
	return slices.ContainsFunc(s.apiStore.Current().List(config.Pod), func(o *config.Config) bool {
		before := known.Get(config.Pod, o.Namespace, o.Name)
		return before != nil && isEnding(o) && !isEnding(before)
	})
}

func isEnding(o *config.Config) bool {
	if o == nil {
		return false
	}
	pod, ok := o.Spec.(*corev1.Pod)
	return ok && pod.DeletionTimestamp != nil
}

// rebuild makes the next snapshot and tells the proxies what kinds differ.
func (s *Server) rebuild(ctx context.Context) {
	started, asked := time.Now(), s.asked.last()
	set, shadowed := s.objects()
	s.shadowed.Store(&shadowed)
	mc := s.meshFile.resolve(set)
	set = s.ofIngresses(config.Discovered(set, mc), mc)
	s.injector.update(set, mc)
	leaving, number := s.departures.current()
	prev := s.snapshot.Load()
	next := mesh.Next(prev, set, mesh.Options{MeshConfig: mc, Networks: s.meshFile.meshNetworks(), Domain: s.o.Domain, ClusterID: s.o.ClusterID, Leaving: leaving, TraceSampling: s.o.TraceSampling, ScopeGateways: s.o.ScopeGateways, SeveralAuthorizers: s.o.SeveralAuthorizers, RemoteKeys: s.tokens.remote, Identities: s.o.Identities, Origination: s.o.Origination})
	s.tokens.give(ctx, next, prev == nil)
	next.Generation = 1
	if prev != nil {
		next.Generation = prev.Generation + 1
	}
	next.Readers = s.readers.current()
	s.giveTrust(prev, next)
	kinds := differing(prev, next)
	defer s.lookForProblems()
	if prev != nil && len(kinds) == 0 && !s.departures.orders.unknown(number) {
		s.asked.served(asked, prev.Generation)
		return
	}
	change := difference(prev, next, kinds)
	s.sharing.move(next, change)
	s.snapshot.Store(next)
	s.lookAtAddresses()
	s.metrics.built(next, time.Since(started))
	s.log.Info("mesh built", "generation", next.Generation, "objects", set.Len(), "services", len(next.Registry.Services()),
		"changed", strings.Join(kinds, ","), "took", time.Since(started).Round(time.Microsecond))
	s.lastBuilt, s.lastTook = time.Now(), time.Since(started)
	s.ads.Push(change)
	s.departures.orders.served(number, next.Generation)
	s.asked.served(asked, next.Generation)
}

// meshConfigKind stands for the mesh configuration among the kinds that differ.
const meshConfigKind = "MeshConfig"

// differing are the kinds whose objects differ.
func differing(prev, next *mesh.Snapshot) []string {
	if prev == nil {
		return []string{"all"}
	}
	var kinds []string
	if !sameMeshConfig(prev.MeshConfig, next.MeshConfig) || !sameNetworks(prev.MeshNetworks, next.MeshNetworks) {
		kinds = append(kinds, meshConfigKind)
	}
	if !prev.Trust.Same(next.Trust) {
		kinds = append(kinds, trustKind)
	}
	if !maps.Equal(prev.Readers, next.Readers) {
		kinds = append(kinds, readersKind)
	}
	for _, k := range config.Kinds() {
		if !slices.Equal(prev.Config.List(k), next.Config.List(k)) || k == config.RequestAuthentication && !sameKeys(prev, next) {
			kinds = append(kinds, string(k))
		}
	}
	return kinds
}

// registered are the kinds of which proxies see only what the registry makes of them.
func registered(kind string) bool {
	switch config.Kind(kind) {
	case config.Service, config.EndpointSlice, config.ServiceEntry, config.WorkloadEntry, config.Namespace, config.Pod, config.Node:
		return true
	}
	return false
}

// difference says what proxies may see of kinds that differ; a new mesh configuration may
// change anything.
func difference(prev, next *mesh.Snapshot, kinds []string) ads.Change {
	if prev == nil || slices.Contains(kinds, meshConfigKind) {
		return ads.Change{All: true}
	}
	if len(prev.Config.List(config.Sidecar))+len(next.Config.List(config.Sidecar)) == 0 {
		kinds = slices.Clone(kinds)
		for i, k := range kinds {
			if k == string(config.VirtualService) {
				kinds[i] = string(routing)
			}
		}
	}
	d := next.Registry.Since(prev.Registry)
	if d.Services {
		if !slices.ContainsFunc(kinds, registered) { // what leaves is no object
			kinds = append(kinds, string(config.EndpointSlice))
		}
		return ads.Change{Kinds: kinds}
	}
	return ads.Change{Kinds: slices.DeleteFunc(slices.Clone(kinds), registered), Subjects: d.Endpoints}
}
