package control

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/compile"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

// A proxy may refuse what we take for right: it is an Envoy of another version, or built
// with less, a patch has settings that only the filter itself understands, a file is not
// there. The resource stays out then, as long as it is the same. The patches of it and the
// filter chains that the proxy complains of, or all patches if that cannot be told, are left
// out of what proxies like it get, until the object that they are from is changed: one bad
// EnvoyFilter or Gateway costs nobody else a listener, after a restart neither.

// barredParts are the patches and filter chains that proxies have refused.
type barredParts struct {
	mu   sync.Mutex
	bars map[barredPart]bar
}

type barredPart struct {
	likeness compile.Likeness
	origin   ir.Origin
}

// A bar is why a patch is left out, and of which state of its object.
type bar struct {
	object          *config.Config
	proxy, resource string
	err             string
}

// maxBars bounds what proxies can make us keep.
const maxBars = 10000

// without are the patches that are not barred for proxies of a likeness.
func (b *barredParts) without(snap *mesh.Snapshot, l compile.Likeness, list []ir.Patch) []ir.Patch {
	if b == nil {
		return list
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.bars) == 0 {
		return list
	}
	return slices.DeleteFunc(list, func(p ir.Patch) bool {
		found, ok := b.bars[barredPart{l, p.Origin}]
		return ok && found.object == objectOf(snap, p.Origin)
	})
}

// chains leaves out of a listener the chains that are barred; nil if none are left.
func (b *barredParts) chains(snap *mesh.Snapshot, like compile.Likeness, l ir.Listener) *ir.Listener {
	if b == nil {
		return &l
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.bars) == 0 {
		return &l
	}
	some := len(l.Chains) > 0
	l.Chains = slices.DeleteFunc(slices.Clone(l.Chains), func(c ir.FilterChain) bool {
		if c.TLS == nil || c.TLS.Origin == nil {
			return false
		}
		found, ok := b.bars[barredPart{like, *c.TLS.Origin}]
		return ok && found.object == objectOf(snap, *c.TLS.Origin)
	})
	if some && len(l.Chains) == 0 && l.DefaultChain == nil {
		return nil
	}
	return &l
}

// add bars a part; false if it is barred already, or there are too many.
func (b *barredParts) add(l compile.Likeness, o ir.Origin, why bar) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := barredPart{l, o}
	if have, ok := b.bars[key]; ok && have.object == why.object || len(b.bars) >= maxBars {
		return false
	}
	if b.bars == nil {
		b.bars = map[barredPart]bar{}
	}
	b.bars[key] = why
	return true
}

// problems are what is barred of objects that are in force as they were; others are forgotten.
func (b *barredParts) problems(snap *mesh.Snapshot) []Problem {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.bars, func(k barredPart, why bar) bool { return why.object != objectOf(snap, k.origin) })
	var list []Problem
	for k, why := range b.bars {
		p := problemOf(snap, k.origin, config.Error)
		p.Message = fmt.Sprintf("left out of what proxies like %s get, which refused it in %s: %s", why.proxy, why.resource, why.err)
		list = append(list, p)
	}
	return list
}

// refused leaves out the patches that a proxy has refused a resource for.
func (s *Server) refused(p *mesh.Proxy, typeURL string, list []ads.Refusal) {
	defer s.lookForProblems()
	s.refusals.note(p, typeURL, list)
	snap := s.snapshot.Load()
	if snap == nil || p.IsGRPC() {
		return
	}
	_, likeness := compile.Like(snap, p)
	news := false
	for _, r := range list {
		why := told(r, list)
		for _, o := range s.guilty(snap, p, typeURL, r.Resource, why) {
			object := objectOf(snap, o)
			news = s.barred.add(likeness, o, bar{object, p.Name + "." + p.Namespace, r.Resource, why}) || news
		}
	}
	if news {
		s.sharing.forget(likeness)
		s.ads.Push(ads.Change{Kinds: []string{string(config.EnvoyFilter)}})
	}
}

// told is what an error says of its own resource: a proxy tells of all that it refused at
// once.
func told(r ads.Refusal, all []ads.Refusal) string {
	text := r.Error
	if _, own, ok := strings.Cut(text, r.Resource+": "); ok {
		text = own
	}
	for _, other := range all {
		text, _, _ = strings.Cut(text, other.Resource+": ")
	}
	return strings.TrimRight(text, ", \n")
}

// guilty are the patches and chains of a resource of which an error quotes something that
// they say, barred ones too: the error may be of before that. Where it quotes nothing it
// is all patches that have touched the resource.
func (s *Server) guilty(snap *mesh.Snapshot, p *mesh.Proxy, typeURL, resource, err string) []ir.Origin {
	all := touched(snap, p, nil, typeURL, resource)
	var quoted []ir.Origin
	for _, one := range compile.Patches(snap, p) {
		if slices.Contains(all, one.Origin) && quotes(err, one.Value) {
			quoted = append(quoted, one.Origin)
		}
	}
	if typeURL == wellknown.ListenerType {
		quoted = append(quoted, serversQuoted(snap, p, resource, err)...)
	}
	if len(quoted) > 0 {
		return quoted
	}
	return touched(snap, p, &s.barred, typeURL, resource)
}

// serversQuoted are the servers of Gateways in a listener that have a file which an error
// names.
func serversQuoted(snap *mesh.Snapshot, p *mesh.Proxy, listener, err string) []ir.Origin {
	var list []ir.Origin
	for _, l := range compile.Listeners(snap, snap.Scope(p), p) {
		for _, c := range l.Chains {
			if l.Name == listener && c.TLS != nil && c.TLS.Origin != nil && quotesFiles(err, *c.TLS) {
				list = append(list, *c.TLS.Origin)
			}
		}
	}
	return list
}

// quotesFiles reports whether an error names a file that a proxy is to read.
func quotesFiles(err string, t ir.DownstreamTLS) bool {
	files := []string{t.CAFile, t.CRL}
	for _, c := range t.CertificateFiles {
		files = append(files, c.Certificate, c.Key)
	}
	return slices.ContainsFunc(files, func(f string) bool { return f != "" && strings.Contains(err, f) })
}

// minQuote is how long a text without quotes is, at least, that is not in an error by chance.
const minQuote = 6

// quotes reports whether an error has a text that is in a JSON value, but for types and
// names that all configurations share.
func quotes(err, value string) bool {
	var v any
	if json.Unmarshal([]byte(value), &v) != nil {
		return false
	}
	return quotesAny(err, v)
}

func quotesAny(err string, v any) bool {
	switch x := v.(type) {
	case string:
		plain := strconv.Quote(x)
		return x != "" && !strings.HasPrefix(x, "type.googleapis.com/") && (strings.Contains(err, plain) || strings.Contains(err, "'"+x+"'") ||
			len(x) >= minQuote && (strings.Contains(err, x) || strings.Contains(err, strings.Trim(plain, `"`))))
	case []any:
		return slices.ContainsFunc(x, func(e any) bool { return quotesAny(err, e) })
	case map[string]any:
		for _, e := range x {
			if quotesAny(err, e) {
				return true
			}
		}
	}
	return false
}

// refusalProblems are the resources that a proxy refuses, by the objects that they are of.
func refusalProblems(snap *mesh.Snapshot, c ads.ConnStatus) []Problem {
	var list []Problem
	for _, w := range c.Watches {
		for _, r := range w.Refused {
			message := fmt.Sprintf("proxies refuse %s: %s", r.Resource, told(r, w.Refused))
			objects := behind(snap, c.Proxy, w.Type.URL, r.Resource)
			for _, o := range objects {
				list = append(list, Problem{Object: o.Key.String(), Place: o.Source.String(), Message: message, Severity: config.Error.String()})
			}
			if len(objects) == 0 {
				list = append(list, Problem{Object: w.Type.Name + " " + r.Resource, Message: message, Severity: config.Error.String()})
			}
		}
	}
	return list
}

// behind are the objects that a resource of a proxy is made of.
func behind(snap *mesh.Snapshot, p *mesh.Proxy, typeURL, resource string) []*config.Config {
	var list []*config.Config
	add := func(o *config.Config) {
		if o != nil && !slices.Contains(list, o) {
			list = append(list, o)
		}
	}
	for _, o := range touched(snap, p, nil, typeURL, resource) {
		add(objectOf(snap, o))
	}
	switch typeURL {
	case wellknown.ListenerType:
		for _, g := range snap.Scope(p).Gateways() {
			for _, server := range g.Spec.GetServers() {
				if resource == fmt.Sprintf("%s_%d", cmp.Or(server.GetBind(), "0.0.0.0"), server.GetPort().GetNumber()) {
					add(g.Config)
				}
			}
		}
	case wellknown.VirtualHostType:
		made, err := newView(snap, p, nil).Resources(typeURL, []string{resource})
		if err != nil {
			break // what proxies have stays, and so does what they refuse
		}
		for _, r := range made {
			eachOrigin(r, func(k config.Key, _ string) { add(snap.Config.Get(k.Kind, k.Namespace, k.Name)) })
		}
	case wellknown.ClusterType, wellknown.EndpointType:
		host := hostOf(resource)
		for _, svc := range snap.Registry.Hosts(host) {
			add(svc.Origin)
		}
		for _, o := range snap.Config.List(config.DestinationRule) {
			rule, ok := o.Spec.(*networking.DestinationRule)
			if ok && config.HostWithin(host, snap.FQDN(rule.Host, o.Namespace)) {
				add(o)
			}
		}
	}
	return list
}

// hostOf is the host in the name of a cluster, as "outbound|80||web.test" and
// "outbound_.80_._.web.test" have it.
func hostOf(cluster string) string {
	if rest, ok := strings.CutPrefix(cluster, "outbound_."); ok {
		if parts := strings.SplitN(rest, "_.", 3); len(parts) == 3 {
			return parts[2]
		}
	}
	return cluster[strings.LastIndexByte(cluster, '|')+1:]
}
