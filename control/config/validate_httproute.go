package config

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	networking "istio.io/api/networking/v1alpha3"
)

// Limits of inline bodies: they travel in every push.
const (
	largeBody = 100 << 10
	maxBody   = 1 << 20
)

func validateHTTPRoute(p place, r *networking.HTTPRoute, delegate bool) {
	validateRouteChoice(p, r, delegate)
	for i, m := range r.Match {
		validateHTTPMatch(p.at("match", i), m)
	}
	validateHeaders(p.field("headers"), r.Headers)
	validateCORS(p.field("corsPolicy"), r.CorsPolicy)
	validateFault(p.field("fault"), r.Fault)
	validateMirrors(p, r)
	validateRedirect(p.field("redirect"), r.Redirect)
	validateDirectResponse(p.field("directResponse"), r.DirectResponse)
	validateRetries(p.field("retries"), r.Retries)
	validateRewrite(p.field("rewrite"), r.Rewrite)
	validateOneAuthority(p, r)
	weights := make([]int32, len(r.Route))
	for i, d := range r.Route {
		at := p.at("route", i)
		if d.Destination == nil {
			at.field("destination").errorf("required")
		}
		validateDestination(at.field("destination"), d.Destination)
		validateHeaders(at.field("headers"), d.Headers)
		weights[i] = d.Weight
	}
	p.field("route").weights(weights)
	p.field("timeout").wrong(zeroOrPositive(r.Timeout))
}

// validateRouteChoice checks that exactly one thing is done with a request.
func validateRouteChoice(p place, r *networking.HTTPRoute, delegate bool) {
	if r.Delegate != nil && !delegate {
		p.excluded("the route has a delegate", map[string]bool{"redirect": r.Redirect != nil, "route": len(r.Route) > 0,
			"directResponse": r.DirectResponse != nil})
		return
	}
	if r.Delegate != nil {
		p.field("delegate").errorf("cannot be set: a delegate cannot delegate further")
	}
	with := map[string]bool{"route": len(r.Route) > 0, "fault": r.Fault != nil, "rewrite": r.Rewrite != nil}
	switch {
	case r.Redirect != nil:
		with["directResponse"] = r.DirectResponse != nil
		p.excluded("the route has a redirect", with)
	case r.DirectResponse != nil:
		p.excluded("the route has a directResponse", with)
	case len(r.Route) == 0:
		p.errorf("one of route, redirect, directResponse and delegate is required")
	}
	if r.Mirror != nil && len(r.Mirrors) > 0 {
		p.field("mirror").errorf("cannot be set together with mirrors")
	}
}

func validateHTTPMatch(p place, m *networking.HTTPMatchRequest) {
	p.field("uri").stringMatch(m.Uri, true)
	p.field("scheme").stringMatch(m.Scheme, false)
	p.field("method").stringMatch(m.Method, false)
	p.field("authority").stringMatch(m.Authority, false)
	for _, k := range sortedKeys(m.Headers) {
		at := p.field("headers").key(k)
		at.headerMatchName(k)
		at.stringMatch(m.Headers[k], false)
	}
	for _, k := range sortedKeys(m.WithoutHeaders) {
		at := p.field("withoutHeaders").key(k)
		at.headerMatchName(k)
		if m.WithoutHeaders[k].GetRegex() != "*" { // not RE2, but the old way to say "present"
			at.stringMatch(m.WithoutHeaders[k], false)
		}
	}
	for _, k := range sortedKeys(m.QueryParams) {
		p.field("queryParams").key(k).stringMatch(m.QueryParams[k], false)
	}
	if m.Port != 0 {
		p.field("port").wrong(port(int64(m.Port)))
	}
	p.field("sourceLabels").labels(m.SourceLabels)
	gatewayNames(p.field("gateways"), m.Gateways)
	if m.SourceNamespace != "" && !isDNSLabel(m.SourceNamespace) {
		p.field("sourceNamespace").errorf("%q is not a namespace", shorten(m.SourceNamespace))
	}
}

// stringMatch checks a matcher; only for paths an empty prefix has a meaning.
func (p place) stringMatch(m *networking.StringMatch, emptyPrefix bool) {
	switch t := m.GetMatchType().(type) {
	case *networking.StringMatch_Prefix:
		if t.Prefix == "" && !emptyPrefix {
			p.field("prefix").errorf("must not be empty")
		}
	case *networking.StringMatch_Regex:
		p.field("regex").wrong(re2(t.Regex))
	}
}

var (
	headerName  = regexp.MustCompile(`^[-_A-Za-z0-9]+$`)
	claimHeader = regexp.MustCompile(`^@request\.auth\.claims(?:\.[^.\[\]]+)+$|^@request\.auth\.claims(?:\[[^\[\]]+\])+$`)
)

func (p place) headerMatchName(name string) {
	if !headerName.MatchString(name) && !isClaim(name) {
		p.errorf("%q is not a header name", shorten(name))
	}
}

// isClaim reports whether a header match stands for a claim of the request's JWT.
func isClaim(name string) bool { return claimHeader.MatchString(strings.ToLower(name)) }

// refuseClaims: only gateways know the claims at the time of routing.
func refuseClaims(p place, r *networking.HTTPRoute) {
	for i, m := range r.Match {
		for field, set := range map[string]map[string]*networking.StringMatch{"headers": m.Headers, "withoutHeaders": m.WithoutHeaders} {
			for _, k := range sortedKeys(set) {
				if isClaim(k) {
					p.at("match", i).field(field).key(k).errorf("routing by JWT claims works at gateways only, and the VirtualService is for sidecars as well")
				}
			}
		}
	}
}

func validateHeaders(p place, h *networking.Headers) {
	validateHeaderOps(p.field("request"), h.GetRequest(), true)
	validateHeaderOps(p.field("response"), h.GetResponse(), false)
}

func validateHeaderOps(p place, ops *networking.Headers_HeaderOperations, request bool) {
	for field, set := range map[string]map[string]string{"set": ops.GetSet(), "add": ops.GetAdd()} {
		for _, name := range sortedKeys(set) {
			at := p.field(field).key(name)
			if !(request && isAuthority(name)) {
				at.editable(name)
			}
			at.wrong(headerValue(set[name]))
		}
	}
	for i, name := range ops.GetRemove() {
		p.at("remove", i).editable(name)
	}
}

func isAuthority(name string) bool {
	return strings.EqualFold(name, ":authority") || strings.EqualFold(name, "host")
}

func (p place) editable(name string) {
	switch {
	case name == "":
		p.errorf("the header name must not be empty")
	case strings.HasPrefix(name, ":") || strings.EqualFold(name, "host"):
		p.errorf("header %q cannot be changed here", shorten(name))
	}
}

// validateOneAuthority: rewrite.authority and the headers host and :authority are
// one thing.
func validateOneAuthority(p place, r *networking.HTTPRoute) {
	set := r.Rewrite.GetAuthority() != ""
	for _, op := range []struct {
		field  string
		values map[string]string
	}{{"set", r.Headers.GetRequest().GetSet()}, {"add", r.Headers.GetRequest().GetAdd()}} {
		for _, name := range sortedKeys(op.values) {
			if !isAuthority(name) {
				continue
			}
			if set {
				p.field("headers.request").field(op.field).key(name).errorf("the authority is already set in this route")
			}
			set = true
		}
	}
}

func validateCORS(p place, c *networking.CorsPolicy) {
	if c == nil {
		return
	}
	for i, o := range c.AllowOrigins {
		at := p.at("allowOrigins", i)
		if o.GetExact() == "" && o.GetPrefix() == "" && o.GetRegex() == "" {
			at.errorf("one of exact, prefix and regex is required")
		} else {
			at.stringMatch(o, false)
		}
	}
	for i, m := range c.AllowMethods {
		if !slices.Contains(httpMethods(), m) {
			p.at("allowMethods", i).add(Error, didYouMean(m, httpMethods()), "%q is not an HTTP method", shorten(m))
		}
	}
	for field, names := range map[string][]string{"allowHeaders": c.AllowHeaders, "exposeHeaders": c.ExposeHeaders} {
		for i, n := range names {
			if n != "*" && !headerName.MatchString(n) {
				p.at(field, i).errorf("%q is not a header name", shorten(n))
			}
		}
	}
	p.field("maxAge").wrong(positive(c.MaxAge))
	if c.MaxAge != nil && c.MaxAge.AsDuration()%time.Second != 0 {
		p.field("maxAge").errorf("must be whole seconds, got %v", c.MaxAge.AsDuration())
	}
}

func httpMethods() []string {
	return []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace}
}

func validateFault(p place, f *networking.HTTPFaultInjection) {
	if f == nil {
		return
	}
	if f.Abort == nil && f.Delay == nil {
		p.errorf("one of abort and delay is required")
	}
	if f.Abort != nil {
		at := p.field("abort")
		at.field("percentage.value").faultPercentage(f.Abort.Percentage)
		switch e := f.Abort.ErrorType.(type) {
		case *networking.HTTPFaultInjection_Abort_GrpcStatus:
			if !slices.Contains(grpcStatuses(), e.GrpcStatus) {
				at.field("grpcStatus").add(Error, didYouMean(e.GrpcStatus, grpcStatuses()), "%q is not a gRPC status name", shorten(e.GrpcStatus))
			}
		case *networking.HTTPFaultInjection_Abort_Http2Error:
			at.field("http2Error").errorf("HTTP/2 errors are not supported")
		case *networking.HTTPFaultInjection_Abort_HttpStatus:
			at.field("httpStatus").status(int64(e.HttpStatus))
		default:
			at.warnf("no status is set: nothing is aborted")
		}
	}
	if f.Delay != nil {
		at := p.field("delay")
		at.field("percentage.value").faultPercentage(f.Delay.Percentage)
		switch t := f.Delay.HttpDelayType.(type) {
		case *networking.HTTPFaultInjection_Delay_FixedDelay:
			at.field("fixedDelay").wrong(positive(t.FixedDelay))
		case *networking.HTTPFaultInjection_Delay_ExponentialDelay:
			at.field("exponentialDelay").errorf("exponential delays are not supported")
		}
	}
}

func grpcStatuses() []string {
	return []string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
		"PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
		"UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
}

// faultPercentage: the proxies count in millionths.
func (p place) faultPercentage(v *networking.Percent) {
	if v == nil {
		return
	}
	if v.Value < 0 || v.Value > 100 || v.Value > 0 && v.Value < 0.0001 {
		p.errorf("must be 0 or 0.0001–100, got %v", v.Value)
	}
}

// status allows 600 because Istio does.
func (p place) status(code int64) {
	if code < 200 || code > 600 {
		p.errorf("must be an HTTP status of 200–599, got %d", code)
	}
}

func validateMirrors(p place, r *networking.HTTPRoute) {
	if mp := r.MirrorPercent; mp != nil { //nolint:staticcheck // deprecated, still in users' files
		if mp.Value > 100 {
			p.field("mirrorPercent").errorf("must be 0–100, got %d", mp.Value)
		}
		p.field("mirrorPercent").add(Warning, "use mirrorPercentage", "is deprecated")
	}
	p.field("mirrorPercentage.value").mirrored(r.MirrorPercentage)
	validateDestination(p.field("mirror"), r.Mirror)
	for i, m := range r.Mirrors {
		at := p.at("mirrors", i)
		if m.Destination == nil {
			at.field("destination").errorf("required")
			continue
		}
		validateDestination(at.field("destination"), m.Destination)
		at.field("percentage.value").mirrored(m.Percentage)
	}
}

func (p place) mirrored(v *networking.Percent) {
	if v != nil && (v.Value < 0 || v.Value > 100) {
		p.errorf("must be 0–100, got %v", v.Value)
	}
}

func validateRedirect(p place, r *networking.HTTPRedirect) {
	if r == nil {
		return
	}
	if r.Uri == "" && r.Authority == "" && r.RedirectPort == nil && r.Scheme == "" {
		p.errorf("one of uri, authority, scheme and port is required")
	}
	if r.RedirectCode != 0 && (r.RedirectCode < 300 || r.RedirectCode > 399) {
		p.field("redirectCode").errorf("must be 3xx, got %d", r.RedirectCode)
	}
	if r.Scheme != "" && r.Scheme != "http" && r.Scheme != "https" {
		p.field("scheme").errorf("must be http or https, got %q", shorten(r.Scheme))
	}
	if r.GetPort() > 0 {
		p.field("port").wrong(port(int64(r.GetPort())))
	}
}

func validateDirectResponse(p place, r *networking.HTTPDirectResponse) {
	if r == nil {
		return
	}
	p.field("status").status(int64(r.Status))
	size := max(len(r.GetBody().GetString_()), len(r.GetBody().GetBytes()))
	switch {
	case size > maxBody:
		p.field("body").errorf("must be at most 1 MB, has %d bytes", size)
	case size > largeBody:
		p.field("body").warnf("%d bytes travel to every proxy with each push", size)
	}
}

func validateRetries(p place, r *networking.HTTPRetry) {
	if r == nil {
		return
	}
	if r.Attempts < 0 {
		p.field("attempts").errorf("must not be negative, got %d", r.Attempts)
	}
	if r.Attempts == 0 && (r.PerTryTimeout != nil || r.RetryOn != "" || r.RetryRemoteLocalities != nil) {
		p.field("attempts").errorf("is 0, which switches retries off, while other retry settings are given")
	}
	p.field("perTryTimeout").wrong(positive(r.PerTryTimeout))
	p.field("backoff").wrong(positive(r.Backoff))
	if r.RetryOn == "" {
		return
	}
	for on := range strings.SplitSeq(r.RetryOn, ",") {
		code, err := strconv.Atoi(on)
		if isCode := err == nil && http.StatusText(code) != ""; !isCode && !slices.Contains(retryConditions(), on) {
			p.field("retryOn").add(Error, didYouMean(on, retryConditions()), "unknown condition %q", shorten(on))
		}
	}
}

// retryConditions are those of the headers x-envoy-retry-on and x-envoy-retry-grpc-on.
func retryConditions() []string {
	return []string{"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx",
		"refused-stream", "retriable-status-codes", "retriable-headers", "envoy-ratelimited", "http3-post-connect-failure",
		"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}
}

func validateRewrite(p place, r *networking.HTTPRewrite) {
	if r == nil {
		return
	}
	rx := r.UriRegexRewrite
	switch {
	case r.Uri != "" && rx != nil:
		p.errorf("only one of uri and uriRegexRewrite can be set")
	case r.Uri == "" && rx == nil && r.Authority == "":
		p.errorf("one of uri, uriRegexRewrite and authority is required")
	case rx != nil && (rx.Match == "" || rx.Rewrite == ""):
		p.field("uriRegexRewrite").errorf("match and rewrite are required")
	case rx != nil:
		p.field("uriRegexRewrite.match").wrong(re2(rx.Match))
	}
}

// headerValue checks the text of an edited header. A % begins a command operator
// (%REQ(x)%) or is written twice.
func headerValue(v string) error {
	for i := range len(v) {
		if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Errorf("must not have control characters")
		}
	}
	return balancedOperators(v)
}

// balancedOperators checks %NAME%, %NAME(args)% and %NAME(args):7%.
func balancedOperators(v string) error {
	for {
		i := strings.IndexByte(v, '%')
		if i < 0 {
			return nil
		}
		v = v[i+1:]
		if strings.HasPrefix(v, "%") {
			v = v[1:]
			continue
		}
		n := operatorLength(v)
		if n < 0 {
			return fmt.Errorf("%q is not a command operator: write a plain %% as %%%%", "%"+shorten(v))
		}
		v = v[n:]
	}
}

var operator = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(?:\([^)]*(?:\([^)]*\)[^)]*)*\))?(?::[A-Za-z0-9]+)?%`)

func operatorLength(v string) int {
	if m := operator.FindStringIndex(v); m != nil {
		return m[1]
	}
	return -1
}
