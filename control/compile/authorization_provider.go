package compile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/ir"
)

// askTimeout bounds a question where the provider does not: the DestinationRule of the
// service is to.
const askTimeout = 10 * time.Minute

// provider is how a service is asked that MeshConfig.extensionProviders names. It is nil for
// one that cannot be asked about connections.
func (t *policyTranslator) provider(name string) (*ir.ExternalAuthorization, error) {
	var p *meshconfig.MeshConfig_ExtensionProvider
	for p = range namedProviders(t.snapshot.MeshConfig, []string{name}) {
		break
	}
	if p == nil {
		return nil, fmt.Errorf("extensionProviders of the mesh configuration have no %q", name)
	}
	filter, needs := extRBAC, extAsk
	if t.tcp {
		filter, needs = extNetworkRBAC, extNetworkAsk
	}
	if !t.proxy.Has(needs) {
		return nil, fmt.Errorf("the proxy has no filter %s", needs)
	}
	out := &ir.ExternalAuthorization{Where: filter, PolicyPrefix: strings.TrimSuffix(askedPolicyOf(name), "-")}
	var err error
	switch {
	case p.GetEnvoyExtAuthzGrpc() != nil:
		err = t.common(out, p.GetEnvoyExtAuthzGrpc())
	case p.GetEnvoyExtAuthzHttp() != nil && t.tcp:
		return nil, t.common(out, p.GetEnvoyExtAuthzHttp())
	case p.GetEnvoyExtAuthzHttp() != nil:
		out.HTTP, err = authorizationCall(p.GetEnvoyExtAuthzHttp())
		err = errors.Join(err, t.common(out, p.GetEnvoyExtAuthzHttp()))
	default:
		err = fmt.Errorf("extension provider %q does not authorize", name)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// common reads what both kinds of provider have.
func (t *policyTranslator) common(out *ir.ExternalAuthorization, p interface {
	GetService() string
	GetPort() uint32
	GetTimeout() *durationpb.Duration
	GetFailOpen() bool
	GetClearRouteCache() bool
	GetStatusOnError() string
	GetIncludeRequestBodyInCheck() *meshconfig.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationRequestBody
}) error {
	var known bool
	if out.Cluster, out.Host, known = providerCluster(t.scope, p.GetService(), p.GetPort()); !known {
		return fmt.Errorf("the proxy sees no service %s with port %d", p.GetService(), p.GetPort())
	}
	if s := p.GetStatusOnError(); s != "" {
		code, err := strconv.ParseUint(s, 10, 16)
		if err != nil || !envoyStatus(uint32(code)) {
			return fmt.Errorf("statusOnError %q is no status that proxies answer with", s)
		}
		out.StatusOnError = uint32(code)
	}
	out.Timeout = timeoutOr(p.GetTimeout(), askTimeout)
	out.FailOpen, out.ClearRoutes = p.GetFailOpen(), p.GetClearRouteCache()
	if b := p.GetIncludeRequestBodyInCheck(); b != nil {
		out.Body = &ir.AuthorizationBody{MaxBytes: b.GetMaxRequestBytes(), Partial: b.GetAllowPartialMessage(), Bytes: b.GetPackAsBytes()}
	}
	return nil
}

func authorizationCall(p *meshconfig.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationHttpProvider) (*ir.AuthorizationCall, error) {
	if prefix := p.GetPathPrefix(); prefix != "" && prefix[0] != '/' {
		return nil, fmt.Errorf("pathPrefix %q does not begin with /", prefix)
	}
	send := p.GetIncludeRequestHeadersInCheck()
	if len(send) == 0 {
		send = p.GetIncludeHeadersInCheck() //nolint:staticcheck // users still have it
	}
	out := &ir.AuthorizationCall{
		PathPrefix: p.GetPathPrefix(), Send: headerPatterns(send), ToUpstream: headerPatterns(p.GetHeadersToUpstreamOnAllow()),
		ToClient: headerPatterns(p.GetHeadersToDownstreamOnDeny()), ToClientOnPass: headerPatterns(p.GetHeadersToDownstreamOnAllow()),
	}
	add := p.GetIncludeAdditionalHeadersInCheck()
	for _, name := range slices.Sorted(maps.Keys(add)) {
		out.Add = append(out.Add, ir.HeaderValue{Name: name, Value: add[name]})
	}
	return out, nil
}

func headerPatterns(names []string) []ir.StringMatch {
	var out []ir.StringMatch
	for _, n := range names {
		m := pattern(n)
		m.IgnoreCase = m.Kind != ir.Regex
		out = append(out, m)
	}
	return out
}

// envoyStatus reports whether a status is among those that Envoy's configuration can name
// (envoy.type.v3.StatusCode).
func envoyStatus(code uint32) bool {
	for _, r := range [][2]uint32{{100, 100}, {200, 208}, {226, 226}, {300, 305}, {307, 308}, {400, 417}, {421, 424}, {426, 426}, {428, 429}, {431, 431}, {500, 508}, {510, 511}} {
		if r[0] <= code && code <= r[1] {
			return true
		}
	}
	return false
}
