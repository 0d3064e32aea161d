package kube

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"github.com/lateen-mesh/lateen/control/config"
)

const definitions = "CustomResourceDefinition"

// names are the CustomResourceDefinitions that there are, of which the metadata alone is
// followed: their schemas are long. It is the store of their Reflector.
type names struct {
	source *Source
	all    map[string]bool // guarded by the source's mutex
	listed bool
	change chan struct{}
}

// Add takes a definition.
func (n *names) Add(object any) error { return n.set(object, true) }

// Update takes a definition whose state has changed: it may be served now.
func (n *names) Update(object any) error { return n.set(object, true) }

// Delete takes a definition away.
func (n *names) Delete(object any) error { return n.set(object, false) }

// Resync has nothing to do.
func (n *names) Resync() error { return nil }

// Replace takes all definitions.
func (n *names) Replace(list []any, _ string) error {
	n.source.mu.Lock()
	n.all, n.listed = map[string]bool{}, true
	for _, object := range list {
		if o, ok := object.(metav1.Object); ok {
			n.all[o.GetName()] = true
		}
	}
	n.source.mu.Unlock()
	signal(n.change)
	return nil
}

func (n *names) set(object any, there bool) error {
	if o, ok := object.(metav1.Object); ok {
		n.source.mu.Lock()
		if there {
			n.all[o.GetName()] = true
		} else {
			delete(n.all, o.GetName())
		}
		n.source.mu.Unlock()
		signal(n.change)
	}
	return nil
}

// known gives the definitions, false before they have been listed.
func (n *names) known() (map[string]bool, bool) {
	n.source.mu.Lock()
	defer n.source.mu.Unlock()
	return maps.Clone(n.all), n.listed
}

// followNames keeps the names up to date.
func (s *Source) followNames(ctx context.Context, n *names) {
	client, err := metadata.NewForConfigAndClient(s.client.config, s.client.http)
	if err != nil {
		s.note(definitions, err)
		return
	}
	all := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	s.reflect(ctx, definitions, &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return all.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return all.Watch(ctx, o)
		},
	}, &metav1.PartialObjectMetadata{}, n)
}

// A following is a kind that is being read.
type following struct {
	reading reading
	stop    func() // ends it and waits until it has
}

// How often the API is asked for what it serves while that is not what it defines: ever
// less often, between these bounds. The start waits for it as long as settling says.
const (
	askAgain = 100 * time.Millisecond
	askLess  = 10 * time.Second
	settling = 30 * time.Second
)

// A repertoire is the custom kinds that are being read.
type repertoire struct {
	source  *Source
	defined *names
	running map[config.Kind]following
	odd     time.Time // since when what is served is not what is defined; zero: it is
}

// followCustom reads custom kinds as they come and go.
func (s *Source) followCustom(ctx context.Context) {
	r := repertoire{source: s, running: map[config.Kind]following{},
		defined: &names{source: s, all: map[string]bool{}, change: make(chan struct{}, 1)}}
	ended := make(chan struct{})
	go func() { defer close(ended); s.followNames(ctx, r.defined) }()
	defer func() { <-ended }()
	for {
		wait := r.look(ctx)
		if !woken(ctx, r.defined.change, wait) {
			break
		}
	}
	for _, f := range r.running {
		f.stop()
	}
}

// look brings what is read in line with what the API serves, and says when to look again:
// after so long, or zero for when definitions change.
func (r *repertoire) look(ctx context.Context) time.Duration {
	defined, listed := r.defined.known()
	if !listed {
		return 0
	}
	served, offered, err := r.source.served(ctx)
	r.source.note("APIGroup", err)
	if err != nil {
		return time.Second
	}
	r.settle(ctx, defined, served)
	if inLine(defined, offered) {
		r.odd = time.Time{}
		r.source.customKnown(defined)
		return 0
	}
	if r.odd.IsZero() {
		r.odd = time.Now()
	}
	since := time.Since(r.odd)
	if since > r.source.settling {
		r.source.customKnown(defined)
	}
	return min(max(since/10, askAgain), askLess)
}

// inLine reports whether the API serves what it defines of the groups of the mesh, and no
// more.
func inLine(defined, offered map[string]bool) bool {
	groups := customGroups()
	for name := range defined {
		if _, group, _ := strings.Cut(name, "."); slices.Contains(groups, group) && !offered[name] {
			return false
		}
	}
	for name := range offered {
		if !defined[name] {
			return false
		}
	}
	return true
}

// settle begins to read what is served, and ends to read what is neither served nor
// defined: an API that has just started may not serve all that it defines.
func (r *repertoire) settle(ctx context.Context, defined map[string]bool, served map[config.Kind]reading) {
	for _, kind := range config.Resources() {
		if !kind.Custom {
			continue
		}
		now, isServed := served[kind.Kind]
		f, isRunning := r.running[kind.Kind]
		switch {
		case isServed && isRunning && f.reading.version == now.version && f.reading.resource == now.resource:
		case isServed:
			if isRunning {
				f.stop()
			}
			r.running[kind.Kind] = r.source.begin(ctx, now)
		case isRunning && !defined[f.reading.definition()]:
			f.stop()
			delete(r.running, kind.Kind)
			r.source.clear(kind.Kind)
			r.source.log.Info("kind is not defined any more: its objects are out of force", "kind", kind.Kind)
		}
	}
}

// definition is the name of the CustomResourceDefinition of a reading.
func (r reading) definition() string { return r.resource + "." + r.version.Group }

// begin follows a kind.
func (s *Source) begin(ctx context.Context, r reading) following {
	s.assign(r)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); s.follow(ctx, r) }()
	return following{reading: r, stop: func() { cancel(); <-ended }}
}

// clear takes all objects of a kind away.
func (s *Source) clear(kind config.Kind) {
	_ = s.shelves[kind].Replace(nil, "") // it never fails
}

// customKnown is called when every kind that is served is being read. Others have no
// objects; but of one that is defined and not served nothing is known, and what the last
// run left of it stays.
func (s *Source) customKnown(defined map[string]bool) {
	s.mu.Lock()
	known := s.custom
	s.custom = true
	var without []config.Kind
	for _, r := range config.Resources() {
		switch shelf := s.shelves[r.Kind]; {
		case known || !r.Custom || shelf.reading.resource != "":
		case defined[r.Plural()+"."+r.Group]:
			s.log.Warn("kind is defined but not served: its objects are not known", "kind", r.Kind)
			shelf.listed = true
		default:
			without = append(without, r.Kind)
		}
	}
	s.mu.Unlock()
	for _, kind := range without {
		s.clear(kind)
	}
	if !known {
		signal(s.wake)
	}
}

func customGroups() []string {
	var groups []string
	for _, r := range config.Resources() {
		if r.Custom && !slices.Contains(groups, r.Group) {
			groups = append(groups, r.Group)
		}
	}
	return groups
}

// served asks the API which custom kinds it serves: each in the version that is preferred
// here, and the names of all that is offered in their groups.
func (s *Source) served(ctx context.Context) (kinds map[config.Kind]reading, offered map[string]bool, err error) {
	kinds, offered = map[config.Kind]reading{}, map[string]bool{}
	for _, group := range customGroups() {
		var g metav1.APIGroup
		if err := s.client.get(ctx, "/apis/"+group, &g); apierrors.IsNotFound(err) {
			continue
		} else if err != nil {
			return nil, nil, err
		}
		versions := map[string][]metav1.APIResource{}
		for _, v := range g.Versions {
			var list metav1.APIResourceList
			if err := s.client.get(ctx, "/apis/"+v.GroupVersion, &list); err != nil && !apierrors.IsNotFound(err) {
				return nil, nil, err
			}
			versions[v.Version] = list.APIResources
			for _, r := range list.APIResources {
				if !strings.Contains(r.Name, "/") {
					offered[r.Name+"."+group] = true
				}
			}
		}
		for _, r := range config.Resources() {
			if found, ok := choose(r, versions); ok && r.Group == group && r.Custom {
				kinds[r.Kind] = found
			}
		}
	}
	return kinds, offered, nil
}

// choose finds the version in which a kind is read.
func choose(kind config.Resource, versions map[string][]metav1.APIResource) (reading, bool) {
	for _, v := range kind.Versions {
		for _, r := range versions[v] {
			if r.Kind == string(kind.Kind) && !strings.Contains(r.Name, "/") {
				return reading{kind: kind.Kind, version: schema.GroupVersion{Group: kind.Group, Version: v}, resource: r.Name, example: &document{}}, true
			}
		}
	}
	return reading{}, false
}

// woken waits for a signal, or so long if that is not zero; false when the context ends.
func woken(ctx context.Context, c <-chan struct{}, wait time.Duration) bool {
	var late <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-c:
	case <-late:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
