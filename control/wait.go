package control

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// A Delivery is how far the connected proxies are on their way to a generation. A proxy of
// ours acknowledges what it has put to use, any other what it has accepted.
type Delivery struct {
	Generation uint64         `json:"generation"` // that is waited for
	Newest     uint64         `json:"newest"`     // that was built
	Proxies    int            `json:"proxies"`    // that count: all that are connected, or the one that is asked for
	Late       []LateProxy    `json:"late,omitempty"`
	Refused    []ProxyRefusal `json:"refused,omitempty"`
	Unread     bool           `json:"unread,omitempty"` // what is waited for was not read yet
}

// A LateProxy has not acknowledged the generation in all types that it subscribes to.
type LateProxy struct {
	ID         string   `json:"id"`         // "name.namespace"
	Generation uint64   `json:"generation"` // that it has in all types
	Types      []string `json:"types,omitempty"`
}

// A ProxyRefusal is a resource of the generation that a proxy refused.
type ProxyRefusal struct {
	ID string `json:"id"`
	Refusal
	Objects []string `json:"objects,omitempty"` // that the resource was made from, as far as it says so
}

// Done reports whether all that count have the generation.
func (d Delivery) Done() bool {
	return !d.Unread && d.Newest >= d.Generation && len(d.Late)+len(d.Refused) == 0
}

// maxObjects bounds how many objects a ProxyRefusal names.
const maxObjects = 5

// Wait waits until every connected proxy, or the one named "name.namespace", has a generation
// or a later one, or has refused a resource of it, or the context ends; the Delivery says how
// far they are then. Generation 0 is that of what there is to read now: changes of files that
// were made before the call are in it.
func (s *Server) Wait(ctx context.Context, generation uint64, proxy string) (Delivery, error) {
	seen := s.refusals.follow()
	defer s.refusals.leave(seen)
	if generation == 0 {
		s.files.Refresh()
		var err error
		if generation, err = s.asked.await(ctx, s.asked.give()); err != nil {
			return Delivery{}, err
		}
	}
	var d Delivery
	err := s.ads.Until(ctx, func(conns []ads.ConnStatus) bool {
		d = s.delivery(conns, generation, proxy)
		if len(d.Refused) == 0 { // it may be over already: what had a part in it was left out
			d.Refused = s.refusals.of(seen, generation, proxy)
		}
		return d.Done() || len(d.Refused) > 0
	})
	for i := range d.Refused {
		d.Refused[i].Objects = s.madeFrom(d.Refused[i])
	}
	return d, err
}

// refusals tells those who wait what proxies refuse meanwhile.
type refusals struct {
	mu   sync.Mutex
	seen map[*seenRefusals]bool
}

// seenRefusals are those since somebody waits, by generation.
type seenRefusals struct{ list map[uint64][]ProxyRefusal }

func (r *refusals) follow() *seenRefusals {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = map[*seenRefusals]bool{}
	}
	s := &seenRefusals{map[uint64][]ProxyRefusal{}}
	r.seen[s] = true
	return s
}

func (r *refusals) leave(s *seenRefusals) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.seen, s)
}

// of are those of a generation and later ones, of one proxy or, with "", of all.
func (r *refusals) of(s *seenRefusals, generation uint64, proxy string) (list []ProxyRefusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for of, some := range s.list {
		for _, one := range some {
			if of >= generation && (proxy == "" || one.ID == proxy) {
				list = append(list, one)
			}
		}
	}
	return list
}

// maxSeen bounds what is kept of a generation for one who waits.
const maxSeen = 16

// note takes what a proxy has refused.
func (r *refusals) note(p *mesh.Proxy, typeURL string, refused []ads.Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.seen {
		for _, one := range refused {
			if len(s.list[one.Generation]) < maxSeen {
				s.list[one.Generation] = append(s.list[one.Generation], ProxyRefusal{ID: p.Name + "." + p.Namespace, Refusal: Refusal{Type: typeName(typeURL), Resource: one.Resource, Error: one.Error}})
			}
		}
	}
}

func typeName(url string) string {
	for _, t := range types() {
		if t.URL == url {
			return t.Name
		}
	}
	return url
}

func (s *Server) delivery(conns []ads.ConnStatus, generation uint64, proxy string) Delivery {
	d := Delivery{Generation: generation}
	if snap := s.snapshot.Load(); snap != nil {
		d.Newest = snap.Generation
	}
	for _, c := range conns {
		id := c.Proxy.Name + "." + c.Proxy.Namespace
		if proxy != "" && proxy != id {
			continue
		}
		d.Proxies++
		late := LateProxy{ID: id, Generation: c.Applied}
		for _, w := range c.Watches {
			if w.Applied < generation {
				late.Types = append(late.Types, cmp.Or(w.Type.Name, w.Type.URL))
			}
			for _, r := range w.Refused {
				if r.Generation >= generation || w.Applied >= generation {
					d.Refused = append(d.Refused, ProxyRefusal{ID: id, Refusal: Refusal{Type: w.Type.Name, Resource: r.Resource, Error: r.Error}})
				}
			}
		}
		if c.Applied < generation {
			d.Late = append(d.Late, late)
		}
	}
	return d
}

// madeFrom are the objects that a refused resource says it was made from, and the
// EnvoyFilters that had a part in it.
func (s *Server) madeFrom(r ProxyRefusal) []string {
	snap := s.snapshot.Load()
	for _, c := range s.ads.Conns() {
		if c.Proxy.Name+"."+c.Proxy.Namespace != r.ID {
			continue
		}
		for _, w := range c.Watches {
			if w.Type.Name != r.Type {
				continue
			}
			objects := patchers(snap, c.Proxy, w.Type.URL, r.Resource)
			resources, err := s.view(c.Proxy).Resources(w.Type.URL, []string{r.Resource})
			if err == nil && len(resources) > 0 {
				objects = append(objects, origins(resources[0])...)
			}
			slices.Sort(objects)
			objects = slices.Compact(objects)
			return objects[:min(len(objects), maxObjects)]
		}
	}
	return nil
}

// origins are the objects that stand in the metadata of a resource's parts.
func origins(r ads.Resource) (objects []string) {
	eachOrigin(r, func(key config.Key, path string) {
		if path == "" {
			path = key.String()
		}
		objects = append(objects, path)
	})
	return objects
}

// eachOrigin visits the objects of a resource's parts: their keys or, where there is only that,
// the original's paths.
func eachOrigin(r ads.Resource, visit func(key config.Key, path string)) {
	m, err := r.Body.UnmarshalNew()
	if err != nil {
		return
	}
	_ = protorange.Range(m.ProtoReflect(), func(at protopath.Values) error { // what cannot be read names nobody
		part, ok := at.Index(-1).Value.Interface().(protoreflect.Message)
		if !ok {
			return nil
		}
		if metadata, ok := part.Interface().(*corepb.Metadata); ok {
			if own := metadata.GetFilterMetadata()["lateen"].GetFields(); own != nil {
				visit(config.Key{Kind: config.Kind(own["kind"].GetStringValue()), Namespace: own["namespace"].GetStringValue(), Name: own["name"].GetStringValue()}, "")
			} else if path := metadata.GetFilterMetadata()["istio"].GetFields()["config"].GetStringValue(); path != "" {
				visit(config.Key{}, path)
			}
			return protorange.Break
		}
		return nil
	})
}

// An Expectation is a state of one object.
type Expectation struct {
	Key     config.Key
	Gone    bool   // it is not there any more
	Version string // of an object of the API, the resourceVersion that must have been read; "" for any
}

// lookAtObject is how often an object is looked at that was not read yet.
const lookAtObject = 20 * time.Millisecond

// WaitObject is Wait, of what the proxies get when an object is as expected. It fails at once
// when the object is there and cannot be used.
func (s *Server) WaitObject(ctx context.Context, e Expectation, proxy string) (Delivery, error) {
	for {
		s.files.Refresh()
		switch met, err := s.meets(e); {
		case err != nil:
			return Delivery{Unread: true}, err
		case met:
			return s.Wait(ctx, 0, proxy)
		}
		if !sleep(ctx, lookAtObject, nil) {
			return Delivery{Unread: true}, ctx.Err()
		}
	}
}

// meets reports whether what was read is as expected.
func (s *Server) meets(e Expectation) (bool, error) {
	set, _ := s.objects()
	inForce := set.Get(e.Key.Kind, e.Key.Namespace, e.Key.Name)
	if s.api == nil || inForce != nil && inForce.Source != (config.Source{}) {
		return e.Gone == (inForce == nil), s.brokenInFile(e)
	}
	read := s.api.Object(e.Key)
	if e.Gone {
		return read.Version == "" && inForce == nil, nil
	}
	if read.Version == "" || !notBefore(read.Version, e.Version) {
		return false, nil
	}
	if err := broken(read.Problems, e.Key); err != nil {
		return false, err
	}
	return inForce != nil && inForce.Equal(read.InForce), nil
}

// brokenInFile is why what a file says of an expected object is not in force.
func (s *Server) brokenInFile(e Expectation) error {
	for _, f := range s.files.Status() {
		if err := broken(f.Problems, e.Key); err != nil && !e.Gone {
			return err
		}
	}
	return nil
}

func broken(problems []config.Problem, key config.Key) error {
	for _, p := range problems {
		if p.Severity == config.Error && p.Object == key {
			return pageError{http.StatusConflict, p.Error()}
		}
	}
	return nil
}

// notBefore compares resourceVersions, which grow.
func notBefore(version, other string) bool {
	v, err1 := strconv.ParseUint(version, 10, 64)
	o, err2 := strconv.ParseUint(other, 10, 64)
	return other == "" || version == other || err1 == nil && err2 == nil && v >= o
}

// waitTime bounds how long the page of deliveries waits when the caller does not say.
const waitTime = 30 * time.Second

// wait is the page of deliveries. It answers when Wait or WaitObject does, or when the time
// is over.
func (s *Server) wait(r *http.Request) (any, error) {
	generation, timeout := uint64(0), waitTime
	var err error
	if text := r.FormValue("generation"); text != "" {
		if generation, err = strconv.ParseUint(text, 10, 64); err != nil {
			return nil, pageError{http.StatusBadRequest, "generation: " + err.Error()}
		}
	}
	if text := r.FormValue("timeout"); text != "" {
		if timeout, err = time.ParseDuration(text); err != nil {
			return nil, pageError{http.StatusBadRequest, "timeout: " + err.Error()}
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	var d Delivery
	if object := r.FormValue("object"); object != "" {
		part := strings.Split(object, "/")
		if len(part) != 3 {
			return nil, pageError{http.StatusBadRequest, "object: want KIND/NAMESPACE/NAME"}
		}
		d, err = s.WaitObject(ctx, Expectation{Key: config.Key{Kind: config.Kind(part[0]), Namespace: part[1], Name: part[2]},
			Gone: r.FormValue("gone") == "true", Version: r.FormValue("resourceVersion")}, r.FormValue("proxyID"))
	} else {
		d, err = s.Wait(ctx, generation, r.FormValue("proxyID"))
	}
	if err != nil && ctx.Err() == nil {
		return nil, err
	}
	return d, nil
}
