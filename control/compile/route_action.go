package compile

import (
	"fmt"
	"math"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ir"
)

// forward fills in where a rule sends requests. It returns "host:port" where that
// is one service, else "".
func (rc *ruleContext) forward(r *ir.Route, rule *networking.HTTPRoute, authority string) string {
	f := &ir.Forward{Timeout: rule.GetTimeout().AsDuration(), Mirrors: rc.mirrors(rule)}
	if w := rule.GetRewrite(); w != nil {
		if re := w.GetUriRegexRewrite(); re != nil {
			f.RegexRewrite = &ir.RegexRewrite{Pattern: re.GetMatch(), Substitution: re.GetRewrite()}
		} else {
			f.PrefixRewrite = w.GetUri()
		}
		if w.GetAuthority() != "" {
			authority = w.GetAuthority()
		}
	}
	f.HostRewrite = authority
	r.Forward = f
	targets := rule.GetRoute()
	if live := withWeight(targets); len(live) == 1 {
		targets = live
	}
	hashed := rc.hashPolicies(f, targets)
	f.Retry = rc.retry(rule.GetRetries(), hashed)
	if len(targets) == 1 {
		return rc.single(r, targets[0])
	}
	f.Split = true
	for _, t := range withWeight(targets) {
		edits, host := headerEdits(t.GetHeaders())
		f.Clusters = append(f.Clusters, ir.WeightedCluster{Name: rc.destination(t.GetDestination()),
			Weight: uint32(t.GetWeight()), Headers: edits, HostRewrite: host})
	}
	return ""
}

// withWeight are the destinations that get traffic: a weight of 0 is none.
func withWeight(targets []*networking.HTTPRouteDestination) []*networking.HTTPRouteDestination {
	var out []*networking.HTTPRouteDestination
	for _, t := range targets {
		if t.GetWeight() > 0 {
			out = append(out, t)
		}
	}
	return out
}

// single sends everything to one destination, whose header edits join the rule's.
func (rc *ruleContext) single(r *ir.Route, t *networking.HTTPRouteDestination) string {
	edits, host := headerEdits(t.GetHeaders())
	r.Headers.RequestAdd = append(r.Headers.RequestAdd, edits.RequestAdd...)
	r.Headers.RequestRemove = append(r.Headers.RequestRemove, edits.RequestRemove...)
	r.Headers.ResponseAdd = append(r.Headers.ResponseAdd, edits.ResponseAdd...)
	r.Headers.ResponseRemove = append(r.Headers.ResponseRemove, edits.ResponseRemove...)
	if r.Forward.HostRewrite == "" {
		r.Forward.HostRewrite = host
	}
	d := t.GetDestination()
	r.Forward.Clusters = []ir.WeightedCluster{{Name: rc.destination(d)}}
	return fmt.Sprintf("%s:%d", d.GetHost(), rc.destinationPort(d))
}

// destination is the cluster of a destination. One that no registry knows is named
// all the same: requests to it get 503 until it appears.
func (rc *ruleContext) destination(d *networking.Destination) string {
	return clusterName(d.GetHost(), d.GetSubset(), rc.destinationPort(d))
}

// destinationPort is the port that is given, else the service's only one, else the
// port that was called.
func (rc *ruleContext) destinationPort(d *networking.Destination) uint32 {
	if n := d.GetPort().GetNumber(); n != 0 {
		return n
	}
	if s := rc.scope.Service(d.GetHost()); s != nil && len(s.Ports) == 1 {
		return s.Ports[0].Number
	}
	return rc.port
}

func (rc *ruleContext) mirrors(rule *networking.HTTPRoute) []ir.Mirror {
	var out []ir.Mirror
	if d := rule.GetMirror(); d != nil {
		share := ir.Fraction{Numerator: 100}
		if p := rule.GetMirrorPercentage(); p != nil {
			share = percent(p.GetValue())
		} else if p := rule.GetMirrorPercent(); p != nil { //nolint:staticcheck // old form, still accepted
			share = ir.Fraction{Numerator: p.GetValue()}
		}
		if share.Numerator > 0 {
			out = append(out, ir.Mirror{Cluster: rc.destination(d), Fraction: share})
		}
	}
	for _, m := range rule.GetMirrors() {
		share := ir.Fraction{Numerator: 100}
		if p := m.GetPercentage(); p != nil {
			share = percent(p.GetValue())
		}
		if share.Numerator > 0 {
			out = append(out, ir.Mirror{Cluster: rc.destination(m.GetDestination()), Fraction: share})
		}
	}
	return out
}

// percent is 0..100 as parts of a million.
func percent(v float64) ir.Fraction {
	return ir.Fraction{Numerator: uint32(math.Round(v * 10000)), Million: true}
}

func (rc *ruleContext) redirect(d *networking.HTTPRedirect) *ir.Redirect {
	out := &ir.Redirect{
		Scheme:  d.GetScheme(),
		Host:    d.GetAuthority(),
		Path:    d.GetUri(),
		PathSet: true,
		Code:    d.GetRedirectCode(),
	}
	if prefix, ok := strings.CutPrefix(d.GetUri(), "%PREFIX()%"); ok {
		out.Path, out.PathSet, out.PrefixRewrite = "", false, prefix
	}
	if p, ok := d.GetRedirectPort().(*networking.HTTPRedirect_Port); ok {
		out.Port = p.Port
	} else if d.GetDerivePort() == networking.HTTPRedirect_FROM_REQUEST_PORT {
		out.Port = rc.port
	}
	if rc.defaultPort(d.GetScheme(), out.Port) {
		out.Port = 0
	}
	return out
}

// defaultPort reports whether a URL of the scheme (empty: the request's) needs no
// port to reach this one.
func (rc *ruleContext) defaultPort(scheme string, port uint32) bool {
	if scheme == "" {
		scheme = "http"
		if rc.tls {
			scheme = "https"
		}
	}
	return scheme == "http" && port == 80 || scheme == "https" && port == 443
}

func directResponse(d *networking.HTTPDirectResponse) *ir.DirectResponse {
	out := &ir.DirectResponse{Status: d.GetStatus()}
	switch b := d.GetBody().GetSpecifier().(type) {
	case *networking.HTTPBody_String_:
		out.Body, out.HasBody = []byte(b.String_), true
	case *networking.HTTPBody_Bytes:
		out.Body, out.HasBody, out.Binary = b.Bytes, true, true
	}
	return out
}
