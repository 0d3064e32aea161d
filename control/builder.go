package control

import (
	"context"
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
	if s.api != nil {
		select {
		case <-s.api.Synced():
		case <-ctx.Done():
			return nil
		}
	}
	s.rebuild()
	close(s.built)
	for s.debounced(ctx, files, api) {
		s.rebuild()
	}
	return nil
}

// objects are those in force, of files and of an API, and what is wrong with having both.
func (s *Server) objects() (*config.Set, []Problem) {
	set, shadowed := config.Join(s.store.Current(), s.apiStore.Current())
	problems := []Problem{}
	for _, o := range shadowed {
		if o.Kind != config.Namespace { // whose existence is all that both say
			problems = append(problems, Problem{Object: o.Key.String(), Severity: config.Warning.String(),
				Message: "is in the Kubernetes API too: the one of " + set.Get(o.Kind, o.Namespace, o.Name).Source.String() + " is used"})
		}
	}
	return set, problems
}

// never is longer than anybody waits.
const never = 24 * 365 * time.Hour

// debounced waits for a burst of signals to be over; false when the context ends. A proxy
// that is about to end waits for nobody, nor does the news that a Pod is to end, as long
// as building the mesh leaves time for other things.
func (s *Server) debounced(ctx context.Context, files, api <-chan struct{}) bool {
	quiet, last := time.NewTimer(never), time.NewTimer(never) // set by the first signal of a burst
	defer quiet.Stop()
	defer last.Stop()
	burst := false
	for {
		select {
		case <-s.departures.changed:
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
		case <-s.meshFile.changed:
		}
		if !burst {
			burst = true
			last.Reset(s.o.Debounce.Max)
		}
		quiet.Reset(s.o.Debounce.After)
	}
}

// podEnds reports whether a Pod is to end of which the Snapshot does not know that.
func (s *Server) podEnds() bool {
	known := s.snapshot.Load().Config
	return slices.ContainsFunc(s.apiStore.Current().List(config.Pod), func(o *config.Config) bool {
		return isEnding(o) && !isEnding(known.Get(config.Pod, o.Namespace, o.Name))
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
func (s *Server) rebuild() {
	started := time.Now()
	set, shadowed := s.objects()
	s.shadowed.Store(&shadowed)
	mc := s.meshFile.resolve(set)
	s.injector.update(set, mc)
	leaving, number := s.departures.current()
	next := mesh.Build(set, mesh.Options{MeshConfig: mc, Domain: s.o.Domain, ClusterID: s.o.ClusterID, Leaving: leaving, TraceSampling: s.o.TraceSampling})
	prev := s.snapshot.Load()
	next.Generation = 1
	if prev != nil {
		next.Generation = prev.Generation + 1
	}
	change := difference(prev, next)
	if s.departures.unknown(number) && !slices.Contains(change.Kinds, string(config.EndpointSlice)) {
		change.Kinds = append(change.Kinds, string(config.EndpointSlice))
	}
	defer s.lookForProblems()
	if !change.All && len(change.Kinds) == 0 {
		return
	}
	s.snapshot.Store(next)
	s.metrics.built(next, time.Since(started))
	s.log.Info("mesh built", "generation", next.Generation, "objects", set.Len(), "services", len(next.Registry.Services()),
		"changed", kindList(change), "took", time.Since(started).Round(time.Microsecond))
	s.lastBuilt, s.lastTook = time.Now(), time.Since(started)
	s.ads.Push(change)
	s.departures.served(number, next.Generation)
}

// difference says which kinds differ; a new mesh configuration may change anything.
func difference(prev, next *mesh.Snapshot) ads.Change {
	if prev == nil || !sameMeshConfig(prev.MeshConfig, next.MeshConfig) {
		return ads.Change{All: true}
	}
	var c ads.Change
	for _, k := range config.Kinds() {
		if !slices.Equal(prev.Config.List(k), next.Config.List(k)) {
			c.Kinds = append(c.Kinds, string(k))
		}
	}
	return c
}

func kindList(c ads.Change) string {
	if c.All {
		return "all"
	}
	return strings.Join(c.Kinds, ",")
}
