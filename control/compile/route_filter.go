package compile

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ir"
)

// headerEdits are the edits of a rule or destination. Setting Host is not one of
// them but a rewrite: its value is the second result.
func headerEdits(h *networking.Headers) (edits ir.HeaderEdits, authority string) {
	req, resp := h.GetRequest(), h.GetResponse()
	set := maps.Clone(req.GetSet())
	for name, value := range set {
		if n := strings.ToLower(name); n == "host" || n == ":authority" {
			authority = value
			delete(set, name)
		}
	}
	edits.RequestAdd = append(values(set, false), values(req.GetAdd(), true)...)
	edits.RequestRemove = slices.Clip(req.GetRemove()) // the object's own: what is appended must not reach it
	edits.ResponseAdd = append(values(resp.GetSet(), false), values(resp.GetAdd(), true)...)
	edits.ResponseRemove = slices.Clip(resp.GetRemove())
	return edits, authority
}

func values(m map[string]string, add bool) []ir.HeaderValue {
	var out []ir.HeaderValue
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, ir.HeaderValue{Name: name, Value: m[name], Append: add})
	}
	return out
}

// faultInjection reads delay and abort. A share that is not given is none at all,
// and an exponential delay, which nothing implements, is none either.
func faultInjection(f *networking.HTTPFaultInjection) *ir.FaultInjection {
	if f == nil {
		return nil
	}
	out := &ir.FaultInjection{}
	if d := f.GetDelay(); d.GetFixedDelay() != nil {
		out.Delay = &ir.FaultDelay{Fixed: d.GetFixedDelay().AsDuration()}
		if p := d.GetPercentage(); p != nil {
			out.Delay.Fraction = percent(p.GetValue())
		} else {
			out.Delay.Fraction = ir.Fraction{Numerator: uint32(d.GetPercent())} //nolint:staticcheck // old form, still accepted
		}
	}
	if a := f.GetAbort(); a != nil {
		out.Abort = faultAbort(a)
	}
	return out
}

func faultAbort(a *networking.HTTPFaultInjection_Abort) *ir.FaultAbort {
	out := &ir.FaultAbort{}
	if p := a.GetPercentage(); p != nil {
		out.Fraction = percent(p.GetValue())
	}
	switch t := a.GetErrorType().(type) {
	case *networking.HTTPFaultInjection_Abort_HttpStatus:
		out.HTTPStatus = uint32(t.HttpStatus)
	case *networking.HTTPFaultInjection_Abort_GrpcStatus:
		status := grpcStatus(t.GrpcStatus)
		out.GRPCStatus = &status
	default:
		return nil
	}
	return out
}

// grpcStatus reads a status by name ("UNAVAILABLE") or number; anything else is UNKNOWN.
func grpcStatus(s string) uint32 {
	if n, err := strconv.ParseUint(s, 10, 8); err == nil {
		return uint32(n)
	}
	var c codes.Code
	if c.UnmarshalJSON([]byte(strconv.Quote(strings.ToUpper(s)))) != nil {
		return uint32(codes.Unknown)
	}
	return uint32(c)
}

func corsPolicy(c *networking.CorsPolicy) *ir.CORSPolicy {
	if c == nil {
		return nil
	}
	out := &ir.CORSPolicy{
		Methods:          strings.Join(c.GetAllowMethods(), ","),
		Headers:          strings.Join(c.GetAllowHeaders(), ","),
		Expose:           strings.Join(c.GetExposeHeaders(), ","),
		ForwardUnmatched: c.GetUnmatchedPreflights() != networking.CorsPolicy_IGNORE,
	}
	for _, o := range c.GetAllowOrigins() {
		out.Origins = append(out.Origins, stringMatch(o))
	}
	if len(out.Origins) == 0 {
		for _, o := range c.GetAllowOrigin() { //nolint:staticcheck // old form, still accepted
			out.Origins = append(out.Origins, ir.StringMatch{Kind: ir.Exact, Value: o})
		}
	}
	if c.GetMaxAge() != nil {
		out.MaxAge = strconv.FormatInt(c.GetMaxAge().GetSeconds(), 10)
	}
	if c.GetAllowCredentials() != nil {
		v := c.GetAllowCredentials().GetValue()
		out.Credentials = &v
	}
	return out
}
