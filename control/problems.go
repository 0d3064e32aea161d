package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/compile"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
	"github.com/lateen-mesh/lateen/wellknown"
)

// Objects that are in force may still be of no use: a rule that no proxy would take
// and a secret that is not there show only when proxies are served. Such problems
// are shown by Status for as long as they last, and logged once.

// How often problems are looked for to be logged: lookAgain after the last time,
// since certificates expire without any change, and no sooner than lookPause and
// lookShare times as long as looking took, so that a large mesh does little else
// than serve while it changes all the time.
const (
	lookAgain = time.Minute
	lookPause = 200 * time.Millisecond
	lookShare = 10
)

// tellProblems logs each problem when it arises.
func (s *Server) tellProblems(ctx context.Context) error {
	told := map[Problem]bool{}
	for {
		started, now := time.Now(), map[Problem]bool{}
		for _, p := range s.problems(time.Now()) {
			now[p] = true
			if !told[p] {
				level := slog.LevelError
				if p.Severity == config.Warning.String() {
					level = slog.LevelWarn
				}
				var attrs []any
				if p.Hint != "" {
					attrs = append(attrs, "hint", p.Hint)
				}
				s.log.Log(ctx, level, p.text(), attrs...)
			}
		}
		told = now
		if !sleep(ctx, max(lookPause, lookShare*time.Since(started)), nil) || !sleep(ctx, lookAgain, s.look) {
			return nil
		}
	}
}

// sleep waits for a while, or less if it is woken; false when the context ends.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// lookForProblems makes tellProblems look soon.
func (s *Server) lookForProblems() {
	select {
	case s.look <- struct{}{}:
	default:
	}
}

// problems are those of no single file, at a time.
func (s *Server) problems(now time.Time) []Problem {
	list := []Problem{}
	for _, p := range s.meshFile.Problems() {
		list = append(list, problem(p))
	}
	for _, p := range s.injector.Problems() {
		list = append(list, problem(p))
	}
	if unmet := s.ingresses.unmet.Load(); unmet != nil {
		list = append(list, *unmet...)
	}
	snap := s.snapshot.Load()
	if snap == nil {
		return list
	}
	list = append(list, s.rules.of(snap)...)
	conns := s.ads.Conns()
	list = append(list, s.flaws.of(snap, conns)...)
	list = append(list, s.refs.of(snap)...)
	list = append(list, portProblems(snap)...)
	list = append(list, s.tokens.problems(snap)...)
	list = append(list, s.trustProblems(snap)...)
	if shadowed := s.shadowed.Load(); shadowed != nil {
		list = append(list, *shadowed...)
	}
	seen := map[Problem]bool{}
	found := s.barred.problems(snap)
	for _, c := range conns {
		for _, p := range proxyProblems(snap, c, now) {
			if !seen[p] {
				seen[p] = true
				found = append(found, p)
			}
		}
	}
	slices.SortFunc(found, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	return append(list, found...)
}

// ruleProblems are the rules in whose place proxies get one that answers 500. They
// are found anew only where something has changed that they are made from.
type ruleProblems struct {
	mu       sync.Mutex
	services []*config.Config // VirtualServices
	mesh     *meshconfig.MeshConfig
	found    []Problem
}

func (r *ruleProblems) of(snap *mesh.Snapshot) []Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	services := snap.Config.List(config.VirtualService)
	if !sameMeshConfig(r.mesh, snap.MeshConfig) || !slices.Equal(r.services, services) {
		r.services, r.mesh, r.found = services, snap.MeshConfig, brokenRules(snap)
	}
	return r.found
}

// portProblems are the ports of Services with proxies behind them whose names do not say
// what is spoken.
func portProblems(snap *mesh.Snapshot) []Problem {
	var list []Problem
	for _, svc := range snap.Registry.Services() {
		for _, p := range svc.Ports {
			if svc.FromEntry || p.Protocol != registry.Unsupported || !hasProxies(snap.Registry.Endpoints(svc, p)) {
				continue
			}
			named := "has no name"
			if p.Name != "" {
				named = fmt.Sprintf("is named %q", p.Name)
			}
			list = append(list, Problem{
				Object: svc.Origin.Key.String(), Field: "spec.ports", Place: svc.Origin.Source.String(), Severity: config.Warning.String(),
				Message: fmt.Sprintf("port %d %s, which does not say what is spoken there: it is found out on each connection", p.Number, named),
				Hint:    fmt.Sprintf("name it after its protocol, such as http-%[1]s or tcp-%[1]s, or say it as appProtocol", cmp.Or(p.Name, fmt.Sprint(p.Number))),
			})
		}
	}
	return list
}

func hasProxies(endpoints []*registry.Endpoint) bool {
	return slices.ContainsFunc(endpoints, func(e *registry.Endpoint) bool { return e.TLSMode == "istio" })
}

// problemOf is a problem, without its message, of a field that something was made from.
func problemOf(snap *mesh.Snapshot, o ir.Origin, s config.Severity) Problem {
	key := config.Key{Kind: config.Kind(o.Kind), Namespace: o.Namespace, Name: o.Name}
	p := Problem{Object: key.String(), Field: o.Field, Severity: s.String()}
	if object := objectOf(snap, o); object != nil {
		p.Place = object.Source.String()
	}
	return p
}

func objectOf(snap *mesh.Snapshot, o ir.Origin) *config.Config {
	return snap.Config.Get(config.Kind(o.Kind), o.Namespace, o.Name)
}

func brokenRules(snap *mesh.Snapshot) []Problem {
	list := []Problem{}
	for _, b := range envoy.Broken(compile.Rules(snap)) {
		p := problemOf(snap, *b.Origin, config.Error)
		p.Message = fmt.Sprintf("the rule cannot be used, requests that it matches are answered 500: %v", b.Err)
		if len(list) == 0 || list[len(list)-1] != p { // once, not for each match
			list = append(list, p)
		}
	}
	return list
}

// proxyProblems are those that one proxy has with the configuration.
func proxyProblems(snap *mesh.Snapshot, c ads.ConnStatus, now time.Time) []Problem {
	var list []Problem
	for _, l := range slices.Concat(compile.ServersLeftOut(snap, c.Proxy), compile.ExtensionsLeftOut(snap, c.Proxy), compile.PoliciesLeftOut(snap, c.Proxy)) {
		list = append(list, Problem{Object: l.Object.Key.String(), Field: l.Field, Place: l.Object.Source.String(),
			Message: l.Reason, Severity: config.Warning.String()})
	}
	list = append(list, refusalProblems(snap, c)...)
	for _, w := range c.Watches {
		if w.Type.URL == wellknown.SecretType {
			list = append(list, secretProblems(snap, c.Proxy, w.Names, now)...)
		}
		if w.Type.URL == wellknown.RouteType && c.Proxy.IsGRPC() {
			list = append(list, grpcProblems(snap, c.Proxy, w.Names)...)
		}
	}
	return list
}

// secretProblems are the secrets that a proxy asks for and does not get, or gets
// though they are expired, at each place that names one.
func secretProblems(snap *mesh.Snapshot, p *mesh.Proxy, names []string, now time.Time) []Problem {
	var list []Problem
	var uses []compile.SecretUse
	for _, name := range names {
		found := secretProblem(snap, p, name, now)
		if found.Message == "" {
			continue
		}
		if uses == nil {
			uses = compile.SecretUses(snap, p)
		}
		named := false
		for _, u := range uses {
			if u.Secret != name {
				continue
			}
			named = true
			found.Object, found.Field, found.Place = u.Object.Key.String(), u.Field, u.Object.Source.String()
			list = append(list, found)
		}
		if !named {
			found.Object = name
			list = append(list, found)
		}
	}
	return list
}

// secretProblem says what is wrong with a secret; the message is empty if nothing is.
func secretProblem(snap *mesh.Snapshot, p *mesh.Proxy, name string, now time.Time) Problem {
	secret, err := secretFor(snap, p, name)
	if errors.Is(err, errUnread) {
		return Problem{} // it will be known in a moment
	}
	if err != nil {
		found := Problem{Message: err.Error(), Severity: config.Error.String()}
		if errors.Is(err, compile.ErrNotFound) {
			found.Hint = fmt.Sprintf("the proxy %s reads Secrets of its own namespace, %s", p.Name, p.Namespace)
		}
		return found
	}
	if err := compile.SecretExpired(secret, now); err != nil {
		return Problem{Message: err.Error(), Severity: config.Warning.String()}
	}
	return Problem{}
}
